"""Shuffled tiles in plain torch: the specification."""

import torch

from kernels import normalize, tensors


def compute(
    images, permutations, corners, shifts, grays, tile, standardize, mean, std, dtype, channels_last
) -> torch.Tensor:
    """Computes what `shuffle_tiles` returns, of the same arguments."""
    b, h, w, c = images.shape
    t, steps = permutations.shape[1], torch.arange(tile)
    places = permutations.long().clamp(0, t - 1)[:, :, None].expand(-1, -1, 2)
    starts = tensors.as_coordinates(corners).gather(1, places)[:, :, None] + tensors.as_coordinates(shifts)[:, None]
    y = (starts[..., 0, None] + steps).clamp(0, h - 1)[..., :, None]
    x = (starts[..., 1, None] + steps).clamp(0, w - 1)[..., None, :]
    pixels = images[torch.arange(b).view(b, 1, 1, 1, 1), y, x, torch.arange(c).view(c, 1, 1)]
    if c == 3:
        red, green, blue = pixels.int().unbind(2)
        luma = ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).to(torch.uint8)
        pixels = torch.where((grays != 0).view(b, 1, 1, 1, 1), luma[:, :, None], pixels)
    pixels = pixels.reshape(b * t, c, tile, tile)
    out = tensors.allocate(images, pixels.shape, dtype, channels_last)
    if not standardize:
        return out.copy_(normalize.normalize(pixels, mean, std, dtype))
    count, exact = torch.tensor(tile * tile, dtype=torch.float32), pixels.long()
    total, squares = exact.sum((2, 3), keepdim=True), (exact * exact).sum((2, 3), keepdim=True)
    # Through float64, because torch's float32 square root on a CPU is not correctly rounded.
    spread = (tile * tile * squares - total * total).float().double().sqrt().float() / count
    return out.copy_((pixels.float() - total.float() / count) * (1 / spread.clamp(min=1)))
