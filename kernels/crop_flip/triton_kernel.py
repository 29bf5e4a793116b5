"""Resampled crops on a GPU: one launch for all of them, whatever their sizes."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
import triton.language as tl
from triton import Config

from kernels import normalize, tensors, triton_tiles, tuning
from kernels.crop_flip.triton_tile import write_tile
from kernels.triton_jit import jit

CONFIGS = (
    Config({"SIDE": 32}, num_warps=4),
    Config({"SIDE": 32}, num_warps=2),
    Config({"SIDE": 32}, num_warps=8),
    Config({"SIDE": 16}, num_warps=1),
)
ONE_SIZE, SEVERAL_SIZES = (tuning.Tunable(name, CONFIGS) for name in ("crop_flip", "multi_crop"))


@jit
def crop_flip_kernel(
    images,
    regions,
    flips,
    boxes,
    outs,
    m0,
    m1,
    m2,
    s0,
    s1,
    s2,
    N: tl.constexpr,
    SIZES: tl.constexpr,
    CROPS: tl.constexpr,
    TILES: tl.constexpr,
    C: tl.constexpr,
    LAST: tl.constexpr,
    SIDE: tl.constexpr,
):
    """Writes one SIDE x SIDE tile of one of an image's crops.

    Programs of one image's crops are neighbors, so that its pixels stay in the cache. Sizes are constants, each with
    code of its own, of which a program runs one: a size in a variable would take more instructions.

    Args:
        images: uint8 [n], contiguous.
        regions: Integers [b, 3], (offset, h, w).
        flips: Integers [b, crops of an image].
        boxes: Integers [b, crops of an image, 4], (y, x, height, width).
        outs: A tuple of an output for each size, [b * crops of this size, C, size, size].
        m0: Mean of the first channel.
        m1: Mean of the second.
        m2: Mean of the third.
        s0: 1 / std of the first channel.
        s1: 1 / std of the second.
        s2: 1 / std of the third.
        N: How many sizes there are.
        SIZES: The sides of the outputs, in pixels.
        CROPS: For each size, how many of an image's crops come before those of this size; last, how many it has.
        TILES: For each size, how many tiles of an image's crops come before; last, how many there are.
        C: Channels, 1 or 3.
        LAST: Whether the outputs are in channels_last memory order.
        SIDE: A power of two, at least 16 pixels.
    """
    image = (tl.program_id(0) // TILES[N]).to(tl.int64)
    program = tl.program_id(0) % TILES[N]
    for k in tl.static_range(N):  # pyright: ignore[reportGeneralTypeIssues]  # typed as never returning
        if (program >= TILES[k]) & (program < TILES[k + 1]):
            across = (SIZES[k] + SIDE - 1) // SIDE
            tile = program - TILES[k]
            nth = tile // (across * across)
            crop = image * CROPS[N] + CROPS[k] + nth
            write_tile(
                images,
                regions + 3 * image,
                flips + crop,
                boxes + 4 * crop,
                outs[k] + (image * (CROPS[k + 1] - CROPS[k]) + nth) * (SIZES[k] * SIZES[k] * C),
                m0,
                m1,
                m2,
                s0,
                s1,
                s2,
                tile % (across * across) // across * SIDE,
                tile % across * SIDE,
                SIZES[k],
                C,
                LAST,
                SIDE,
            )


def constants(sizes: Sequence[int], counts: Sequence[int], side: int) -> dict[str, Any]:
    """Returns the kernel's constants for `counts` crops of each of the sizes and tiles of a side, by name."""
    tiles = (count * triton_tiles.num_blocks(size, side) for size, count in zip(sizes, counts))
    sums = {"CROPS": (0, *accumulate(counts)), "TILES": (0, *accumulate(tiles))}
    return {"N": len(sizes), "SIZES": tuple(sizes), **sums, "SIDE": side}


def choose(sizes: Sequence[int], dtype: torch.dtype, channels_last: bool, device: torch.device | None = None):
    """Returns the configuration for crops of these sizes; arguments as those of `Tunable.choose`."""
    return (SEVERAL_SIZES if len(sizes) > 1 else ONE_SIZE).choose(max(sizes), dtype, channels_last, device)


def launch(images, regions, flips, boxes, sizes, counts, mean, std, dtype, channels_last) -> list[torch.Tensor]:
    """Launches the Triton kernel; arguments and result as those of `multi_crop_op`."""
    b, c = regions.shape[0], len(mean)
    config = choose(sizes, dtype, channels_last, images.device)
    known = constants(sizes, counts, config["SIDE"])
    outs = [
        tensors.allocate(images, (b * count, c, size, size), dtype, channels_last) for size, count in zip(sizes, counts)
    ]
    if programs := b * known["TILES"][-1]:
        with torch.cuda.device_of(images):
            crop_flip_kernel[(programs,)](
                images.contiguous(),
                *map(tensors.as_triton_int, (regions, flips, boxes)),
                tuple(outs),
                *normalize.scalars(mean, std),
                **known,
                C=c,
                LAST=channels_last,
                num_warps=config["num_warps"],
                enable_fp_fusion=False,
            )
    return outs
