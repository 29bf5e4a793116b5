"""What encoders promise: the same weights for a seed, and maps of the widths and strides that they say."""

import pytest
import torch
from support.synthetic_images import gradients
from torch import nn

from ssl_core.encoders.build import build, describe, digest
from ssl_core.errors import UserError

NAMES = ["convnet", "convnet-plain", "resnet18"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_a_seed_names_the_weights(name):
    first = digest(build(name, 32, 0))
    assert digest(build(name, 32, 0)) == first
    assert digest(build(name, 32, 1)) != first


@pytest.mark.parametrize("name", NAMES)
def test_building_leaves_the_generator_alone(name):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    build(name, 32, 0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "size", "widths", "strides"),
    [
        ("convnet", 32, (32, 64, 128), (2, 4, 8)),
        ("convnet", 96, (32, 64, 128), (2, 4, 8)),
        ("convnet-plain", 32, (32, 64, 128), (2, 4, 8)),
        ("resnet18", 32, (64, 64, 128, 256, 512), (1, 1, 2, 4, 8)),  # a CIFAR stem
        ("resnet18", 96, (64, 64, 128, 256, 512), (2, 4, 8, 16, 32)),  # the ImageNet stem
    ],
)
@pytest.mark.slow
def test_describes_its_maps(name, size, widths, strides):
    encoder = build(name, size, 0)
    assert (describe(encoder, name, size).widths, describe(encoder, name, size).strides) == (widths, strides)
    maps = encoder(torch.zeros(2, 3, size, size))
    assert [tuple(m.shape) for m in maps] == [(2, w, size // s, size // s) for w, s in zip(widths, strides)]


def test_describing_changes_nothing():
    encoder = build("convnet", 32, 0).train()
    before = digest(encoder)
    describe(encoder, "convnet", 32)
    assert encoder.training and digest(encoder) == before


def test_refuses_an_encoder_that_needs_larger_images():
    with pytest.raises(UserError, match="'efficientnet_b0' needs images of at least 64 px, these are 32 px"):
        build("efficientnet_b0", 32, 0)
    assert describe(build("efficientnet_b0", 64, 0), "efficientnet_b0", 64).strides == (2, 4, 8, 16, 32)


def test_suggests_names_for_an_unknown_one():
    with pytest.raises(UserError, match=r"'resnet1' cannot be built.*try one of: convnet, .*resnet1\d"):
        build("resnet1", 32, 0)


class Two(nn.Module):
    """Two layers, registered in either order."""

    def __init__(self, names):
        super().__init__()
        for name in names:
            self.add_module(name, nn.BatchNorm1d(3))


def test_a_digest_ignores_the_order_of_names():
    assert digest(Two("ab")) == digest(Two("ba"))
    assert digest(Two("ab")) != digest(Two("ac"))


def test_a_digest_notices_every_weight_and_buffer():
    encoder = build("convnet", 32, 0)
    seen = {digest(encoder)}
    for name, tensor in encoder.state_dict().items():
        tensor.view(-1)[-1] += 1
        assert digest(encoder) not in seen, name
        seen.add(digest(encoder))
    assert digest(encoder.double()) not in seen


def test_raw_pixels_are_averages_of_eight_by_eight_cells():
    images = gradients(4).permute(0, 3, 1, 2).float()
    cells = images.unflatten(3, (8, 4)).unflatten(2, (8, 4)).mean((3, 5))
    [found] = build("raw-pixels", 32, 0)(images)
    assert found.shape == (4, 48, 2, 2)
    assert torch.allclose(nn.functional.pixel_shuffle(found, 4), cells)
