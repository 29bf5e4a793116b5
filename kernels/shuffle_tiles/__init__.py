"""Cut tiles, put them in permuted order, disturb colors and normalize: jigsaw puzzles in one launch."""

from collections.abc import Sequence

import torch

from kernels import checks, registry, tensors
from kernels.shuffle_tiles import cases, cpu_loop, reference, triton_kernel


@torch.library.custom_op("tilespin::shuffle_tiles", mutates_args=())
def shuffle_tiles_op(
    images: torch.Tensor,
    permutations: torch.Tensor,
    corners: torch.Tensor,
    shifts: torch.Tensor,
    grays: torch.Tensor,
    tile: int,
    standardize: bool,
    mean: list[float],
    std: list[float],
    dtype: torch.dtype,
    channels_last: bool,
) -> torch.Tensor:
    """Runs `shuffle_tiles` on the device of the images, with arguments that are checked already."""
    run = registry.choose_implementation(triton_kernel.launch, cpu_loop.run, images)
    return run(images, permutations, corners, shifts, grays, tile, standardize, mean, std, dtype, channels_last)


@shuffle_tiles_op.register_fake
def _(images, permutations, corners, shifts, grays, tile, standardize, mean, std, dtype, channels_last):
    shape = (images.shape[0] * permutations.shape[1], images.shape[3], tile, tile)
    return tensors.allocate(images, shape, dtype, channels_last)


def shuffle_tiles(
    images: torch.Tensor,
    permutations: torch.Tensor,
    corners: torch.Tensor,
    shifts: torch.Tensor,
    grays: torch.Tensor,
    *,
    tile: int,
    standardize: bool,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> torch.Tensor:
    """Cuts tiles from each image in a permuted order, shifts their channels, grays them, and normalizes them.

    Source: jigsaw puzzles with gaps, chromatic jitter and tile normalization (Noroozi & Favaro 2016, arXiv:1603.09246).

    Args:
        images: uint8 [b, h, w, c], c is 1 or 3; any strides.
        permutations: [b, t] integers, t >= 1; which tile comes at each place, clamped to 0..t-1.
        corners: [b, t, 2] integers; each tile's top left (y, x) in pixels.
        shifts: [b, c, 2] integers; (y, x) in pixels, added to the corners for each channel. The coordinates of the
            pixels are then clamped into the image.
        grays: [b] integers; where not 0, and c is 3, all three channels become
            (19595 R + 38470 G + 7471 B + 32768) >> 16 of the shifted ones.
        tile: The side of a tile, in pixels; at most min(h, w).
        standardize: Whether each tile and channel is normalized by its own mean and max(std, 1), from exact sums,
            instead of `mean` and `std`; for float dtypes only.
        mean: c numbers in pixel units (0..255).
        std: c numbers > 0 in pixel units.
        dtype: Of the result: uint8, float32, bfloat16 or float16.
        channels_last: Whether the result is in channels_last instead of NCHW memory order.

    Returns:
        [b * t, c, tile, tile] of `dtype`: row k * t + s is tile permutations[k, s] of image k, its pixels as uint8, or
        (pixel - mean) * (1 / std), computed in float32 and then rounded.

    Raises:
        ValueError: If an argument has another type, shape, device or range.
    """
    checks.check_images(images)
    checks.check_size("tile", tile, images)
    b, c, device = images.shape[0], images.shape[3], images.device
    checks.check_tensor("permutations", permutations)
    if permutations.dim() != 2 or permutations.shape[1] < 1:
        raise ValueError(f"permutations: got {list(permutations.shape)}; expected [{b}, t], t >= 1")
    t = permutations.shape[1]
    checks.check_integers("permutations", permutations, (b, t), device)
    checks.check_integers("corners", corners, (b, t, 2), device)
    checks.check_integers("shifts", shifts, (b, c, 2), device)
    checks.check_integers("grays", grays, (b,), device)
    means, stds = checks.check_output(c, mean, std, dtype)
    if standardize and dtype == torch.uint8:
        raise ValueError("standardize: got True with dtype torch.uint8; expected a float dtype")
    return shuffle_tiles_op(
        images,
        permutations,
        corners,
        shifts,
        grays,
        tile,
        standardize,
        means,
        stds,
        dtype,
        channels_last,
    )


KERNELS = (
    registry.Kernel(
        "shuffle_tiles",
        shuffle_tiles_op,
        reference.compute,
        triton_kernel.launch,
        cpu_loop.run,
        cases.examples,
        (triton_kernel.TUNABLE,),
        cases.builds,
    ),
)
