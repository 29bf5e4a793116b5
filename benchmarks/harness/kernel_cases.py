"""What the kernel benchmark does: one batch of images with its labels, and a row for every kernel.

A new kernel gets a row here, and a function of its name in each file of `benchmarks/peers` that can do the same work.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from kernels.crop_flip import crop_flip, multi_crop
from kernels.erase import erase
from kernels.lab import bin_centers, lab
from kernels.photometric import photometric
from kernels.random import draw
from kernels.rotate import rotate, rotate_all
from kernels.shuffle_tiles import shuffle_tiles

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
CELL = 4  # px, side of a cell that has one color
GRAY_LEVEL = 1 / min(STD)  # one step of an 8-bit image, after normalization
VIEWS = (2, 6)  # of each image, large and small ones: multi-crop (Caron et al. 2020, arXiv:2006.09882)


@dataclass(frozen=True)
class Work:
    """Random images uint8 [b, size, size, 3] and what is to be done with them, all on one device."""

    images: torch.Tensor
    dtype: torch.dtype
    channels_last: bool
    turns: torch.Tensor  # [b] quarter turns
    tile: int  # side of a jigsaw tile
    orders: torch.Tensor  # [b, t] jigsaw permutations
    corners: torch.Tensor  # [b, t, 2]
    erased: torch.Tensor  # [b, 2, 4] boxes to erase
    windows: torch.Tensor  # [b, 4] boxes to resize to size x size
    flips: torch.Tensor  # [b]
    views: torch.Tensor  # [b, 8, 4] boxes to resize to view_sizes, VIEWS of each
    mirrored: torch.Tensor  # [b, 8]
    factors: torch.Tensor  # [b, 4] of brightness, contrast, saturation and hue
    jitter: torch.Tensor  # [b, 4] their orders

    @property
    def size(self) -> int:
        return self.images.shape[1]

    @property
    def view_sizes(self) -> list[int]:
        return [self.size, self.size // 2]

    def of_each_view_size(self) -> Iterator[tuple[int, int, torch.Tensor, torch.Tensor]]:
        """For peers that make views of one size in a call: a size, how many views, their flips and boxes."""
        return zip(self.view_sizes, VIEWS, self.mirrored.split(VIEWS, 1), self.views.split(VIEWS, 1))

    @property
    def output(self) -> dict:
        """Keyword arguments of every kernel."""
        return dict(mean=MEAN, std=STD, dtype=self.dtype, channels_last=self.channels_last)


def make(size: int, batch: int, device: str, dtype: torch.dtype, channels_last: bool) -> Work:
    chance = torch.Generator().manual_seed(0)

    def integers(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, high, shape, generator=chance)

    def orders(n: int) -> torch.Tensor:
        return torch.rand(batch, n, generator=chance).argsort(1)

    grid = 3 if size >= 96 else 2
    cell = size // grid
    tile = max(cell * 6 // 7 // 8, 1) * 8  # 64 of 74 pixels, 24 of 32, 8 of 16
    index = torch.arange(grid * grid)
    cells = torch.stack([index // grid, index % grid], 1) * cell
    side = size // 2 + integers(size // 2, batch, 1)  # windows of a quarter of the image to all of it
    place = (integers(2**20, batch, 2) * (size - side + 1)) >> 20
    colors = torch.rand(batch, 4, generator=chance) * 0.8 + torch.tensor([0.6, 0.6, 0.6, -0.4])
    tensors = dict(
        images=integers(256, batch, size, size, 3).to(torch.uint8),
        turns=integers(4, batch),
        orders=orders(grid * grid),
        corners=cells + integers(cell - tile + 1, batch, grid * grid, 2),
        erased=torch.cat([integers(size // 2, batch, 2, 2), size // 4 + integers(size // 4, batch, 2, 2)], 2),
        windows=torch.cat([place, side, side], 1),
        flips=integers(2, batch),
        factors=colors,
        jitter=orders(4),
    )
    # DINO's large views show 0.4 to 1 of an image's area, small ones 0.05 to 0.4
    limits = (size * 5 // 8, size), (size // 4, size * 5 // 8)
    sides = torch.cat([low + integers(high - low + 1, batch, n, 1) for (low, high), n in zip(limits, VIEWS)], 1)
    places = (integers(2**20, batch, sum(VIEWS), 2) * (size - sides + 1)) >> 20
    tensors |= dict(views=torch.cat([places, sides, sides], 2), mirrored=integers(2, batch, sum(VIEWS)))
    return Work(dtype=dtype, channels_last=channels_last, tile=tile, **{k: v.to(device) for k, v in tensors.items()})


def none(w: Work, *shape: int) -> torch.Tensor:
    """Labels that ask for nothing."""
    return torch.zeros(len(w.images), *shape, dtype=torch.int64, device=w.images.device)


@dataclass(frozen=True)
class Row:
    """name: of the kernel, and of the functions in `benchmarks/peers`; prepare: as theirs, returns a callable that
    does the work; read: the bytes of pixels that it must read, at least; tolerance: by what a peer's float32 may
    differ and still be right."""

    name: str
    prepare: Callable[[Work], Callable]
    read: Callable[[Work], int]
    tolerance: float = 1e-4


def _every_pixel(w: Work) -> int:
    return w.images.numel()


def _largest_views(w: Work) -> int:
    return int(w.views[..., 2:].prod(2).amax(1).sum()) * 3


def _rotate(w):
    zero, corner = none(w), none(w, 2)
    return lambda: rotate(w.images, w.turns, zero, corner, size=w.size, **w.output)


def _rotate_all(w):
    zero, corner = none(w), none(w, 2)
    return lambda: rotate_all(w.images, zero, corner, size=w.size, **w.output)


def _shuffle_tiles(w):
    zero, shifts = none(w), none(w, 3, 2)
    options = dict(tile=w.tile, standardize=True, **w.output)
    return lambda: shuffle_tiles(w.images, w.orders, w.corners, shifts, zero, **options)


def _erase(w):
    zero, corner, field = none(w), none(w, 2), none(w, 0, 0)
    return lambda: erase(w.images, zero, corner, w.erased, field, zero, size=w.size, **w.output)


def _crop_flip(w):
    return lambda: crop_flip(w.images, w.flips, w.windows, size=w.size, **w.output)


def _multi_crop(w):
    return lambda: multi_crop(w.images, w.mirrored, w.views, sizes=w.view_sizes, counts=VIEWS, **w.output)


def _photometric(w):
    zero = none(w)
    return lambda: photometric(w.images, w.factors, w.jitter, zero, **w.output)


def _lab(w):
    zero, corner = none(w), none(w, 2)
    return lambda: lab(w.images, zero, corner, size=w.size, cell=CELL, **w.output)


def ab_bins(device: torch.device) -> torch.Tensor:
    """int64 [25, 25]: the number of the bin of each square of the ab plane that has one, for peers of `lab`."""
    numbers = torch.zeros(25, 25, dtype=torch.int64)
    row, column = (bin_centers() / 10 + 12).long().unbind(1)
    numbers[row, column] = torch.arange(len(row))
    return numbers.to(device)


def _draw(w):
    return lambda: draw(w.turns, w.turns, seed=0, stream=1, count=16)


ROWS = (
    Row("rotate", _rotate, _every_pixel),
    Row("rotate_all", _rotate_all, _every_pixel),
    Row("shuffle_tiles", _shuffle_tiles, lambda w: w.orders.numel() * w.tile * w.tile * 3),
    Row("erase", _erase, _every_pixel),
    # peers round to 8 bits between their steps
    Row("crop_flip", _crop_flip, lambda w: int(w.windows[:, 2:].prod(1).sum()) * 3, tolerance=1.5 * GRAY_LEVEL),
    Row("multi_crop", _multi_crop, _largest_views, tolerance=1.5 * GRAY_LEVEL),
    Row("photometric", _photometric, _every_pixel, tolerance=1e-2),
    Row("lab", _lab, _every_pixel),
    Row("draw", _draw, lambda w: 2 * w.turns.nbytes),
)
