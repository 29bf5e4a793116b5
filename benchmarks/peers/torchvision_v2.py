"""torchvision's v2 transforms, which take one angle, box or factor a call: image by image."""

import torch
from torchvision.transforms.v2 import functional as V

from benchmarks.harness.kernel_cases import MEAN, STD


def _normalize(images, w):
    """[n, 3, h, w] uint8 to the output."""
    layout = torch.channels_last if w.channels_last else torch.contiguous_format
    unit = V.to_dtype(images, torch.float32, scale=True)
    done = V.normalize(unit, [m / 255 for m in MEAN], [s / 255 for s in STD], inplace=True)
    return done.to(w.dtype).contiguous(memory_format=layout)


def _planes(w):
    return w.images.permute(0, 3, 1, 2)


def rotate(w):
    return lambda: _normalize(
        torch.stack([V.rotate(image, 90.0 * k) for image, k in zip(_planes(w), w.turns.tolist())]), w
    )


def rotate_all(w):
    return lambda: _normalize(torch.stack([V.rotate(_planes(w), 90.0 * k) for k in range(4)], 1).flatten(0, 1), w)


def erase(w):
    zeros = [0.0, 0.0, 0.0]

    def call():
        whole = _normalize(_planes(w), w)
        masked, mask = whole.clone(), torch.zeros_like(whole[:, :1], dtype=torch.uint8)
        for image, hidden, boxes in zip(masked, mask, w.erased.tolist()):
            for y, x, height, width in boxes:
                V.erase(
                    image, y, x, height, width, torch.tensor(zeros, device=image.device)[:, None, None].to(image), True
                )
                V.erase(hidden, y, x, height, width, torch.ones(1, 1, 1).to(hidden), True)
        return masked, whole, mask

    return call


def _crops(w, images, flips, boxes, size):
    rows = []
    for image, flip, (y, x, height, width) in zip(images, flips.tolist(), boxes.tolist()):
        row = V.resized_crop(image, y, x, height, width, [size, size], antialias=True)
        rows.append(V.horizontal_flip(row) if flip else row)
    return _normalize(torch.stack(rows), w)


def crop_flip(w):
    return lambda: _crops(w, _planes(w), w.flips, w.windows, w.size)


def multi_crop(w):
    def call():
        done = []
        for size, count, flips, boxes in w.of_each_view_size():
            images = (image for image in _planes(w) for _ in range(count))
            done.append(_crops(w, images, flips.flatten(), boxes.flatten(0, 1), size))
        return done

    return call
