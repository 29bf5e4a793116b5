"""The transformed versions of images that features are compared under."""

import pytest
import torch
from support.synthetic_images import gradients

from kernels.random import RandomBits
from ssl_core.evaluation.transforms import ORDERS, TRANSFORMS, augmented, blurred, cropped, rotated, shuffled


def draw(count: int, seed: int = 0) -> RandomBits:
    return RandomBits(torch.arange(count), torch.zeros(count, dtype=torch.int64), seed)


@pytest.mark.parametrize("size", [16, 17, 33])
def test_views_keep_shape_and_type(size):
    images = gradients(3, size)
    views = [view for strengths in TRANSFORMS.values() for view in strengths.values()]
    for view in (*views, augmented):
        seen = view(images, draw(3))
        assert seen.shape == images.shape and seen.dtype == torch.uint8 and not torch.equal(seen, images)


def test_turns_and_tiles_move_pixels_exactly():
    images = gradients(4, 6)
    turns = rotated(images, torch.arange(4))
    assert all(torch.equal(turns[k], torch.rot90(images[k], k)) for k in range(4))
    order = ORDERS.tolist().index([2, 0, 3, 1])
    whole = shuffled(images, torch.full((4,), order))
    tiles = [images[:, :3, :3], images[:, :3, 3:], images[:, 3:, :3], images[:, 3:, 3:]]
    assert torch.equal(whole[:, :3], torch.cat([tiles[2], tiles[0]], 2))
    assert torch.equal(whole[:, 3:], torch.cat([tiles[3], tiles[1]], 2))
    assert torch.equal(shuffled(images, torch.zeros(4, dtype=torch.int64)), images)


def test_blur_is_torchvisions():
    from torchvision.transforms.v2.functional import gaussian_blur

    images = gradients(2, 32)
    expected = gaussian_blur(images.permute(0, 3, 1, 2), [9, 9], [1.28, 1.28]).permute(0, 2, 3, 1)
    assert (blurred(images, 0.04).int() - expected.int()).abs().max() <= 1


def test_crops_are_windows_of_the_image():
    ramp = torch.arange(32, dtype=torch.uint8)[None, :, None, None].expand(50, 32, 32, 3).contiguous()
    seen = cropped(ramp, draw(50), 0.5)[..., 0, 0]
    spans = seen[:, -1].int() - seen[:, 0].int()
    assert spans.min() >= 14 and spans.max() <= 16
    assert len(seen[:, 0].unique()) > 8, "windows lie all over the image"
