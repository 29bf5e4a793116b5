"""Color jitter in plain torch: the specification, with the numbers that every implementation shares."""

import torch

from kernels import normalize, tensors

CONTRAST = 1  # its number in `order`; brightness is 0, saturation 2 and hue 3
STEPS = 4096  # a gray level in whole steps, so that an image's mean is the same in any order of summation


def _gray(pixels):
    return pixels[0] * 0.2989 + pixels[1] * 0.587 + pixels[2] * 0.114


def _blend(pixels, other, factor):
    return (pixels * factor + other * (1 - factor)).clamp(0, 255)


def _mean(pixels):
    total = (_gray(pixels) * STEPS + 0.5).long().sum()
    return total.float() / torch.tensor(pixels[0].numel() * STEPS, dtype=torch.float32)


def _hue(pixels, shift):
    red, green, blue = pixels
    top = pixels.amax(0)
    chroma = top - pixels.amin(0)
    difference = torch.where(top == red, green - blue, torch.where(top == green, blue - red, red - green))
    sextant = torch.where(top == red, 0.0, torch.where(top == green, 2.0, 4.0))
    angle = difference / torch.where(chroma > 0, chroma, 1.0) + sextant + shift.clamp(-0.5, 0.5) * 6
    angle = torch.where(angle < 0, angle + 6, angle)
    angle = torch.where(angle >= 6, angle - 6, angle)
    k = angle + torch.tensor([5.0, 3.0, 1.0]).view(3, 1, 1)
    k = torch.where(k >= 6, k - 6, k)
    return top - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


def compute(images, factors, order, grays, mean, std, dtype, channels_last) -> torch.Tensor:
    """Computes what `photometric` returns, of the same arguments."""
    b, h, w, c = images.shape
    out = tensors.allocate(images, (b, c, h, w), dtype, channels_last)
    for image in range(b):
        pixels = images[image].permute(2, 0, 1).float()
        for operation in (order[image].long() & 3).tolist():
            factor = factors[image, operation]
            if operation == 0:
                pixels = (pixels * factor).clamp(0, 255)
            elif operation == CONTRAST:
                pixels = _blend(pixels, _mean(pixels), factor)
            elif operation == 2:
                pixels = _blend(pixels, _gray(pixels), factor)
            elif factor != 0:
                pixels = _hue(pixels, factor)
        if grays[image]:
            pixels = _gray(pixels).expand(3, h, w)
        if dtype == torch.uint8:
            pixels = (pixels + 0.5).floor().to(torch.uint8)
        out[image] = normalize.normalize(pixels, mean, std, dtype)
    return out
