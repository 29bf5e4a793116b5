"""The numbers of the color conversion that all implementations share, and the bins of the ab plane.

Source: sRGB, IEC 61966-2-1; CIELAB, CIE 15; the bins, Zhang, Isola and Efros 2016 (arXiv:1603.08511, section 2.1).
"""

import functools

import numpy as np
import torch

from kernels.normalize import float32

ONE = 2**24  # linear light of 1: float32 holds all whole numbers up to here
KNOTS = 4096  # intervals of the tables over linear light
STEP = 10  # side of a bin in the ab plane
REACH = 12  # bins from the middle of the ab plane to its edge
SIDE = 2 * REACH + 1

_MATRIX = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
# X, Y and Z over those of D65 white, as weights of linear red, green and blue: grays are neutral to rounding
WEIGHTS = tuple(tuple(map(float32, row / row.sum())) for row in _MATRIX)

# The centers of the squares of the grid that hold at least one of the 2^24 colors of sRGB: a, and the first and last b.
_GAMUT = {
    **{-90: (80, 80), -80: (40, 80), -70: (20, 90), -60: (0, 90), -50: (-20, 90)},
    **{-40: (-30, 90), -30: (-40, 90), -20: (-40, 90), -10: (-50, 90), 0: (-60, 90)},
    **{10: (-70, 80), 20: (-70, 80), 30: (-80, 80), 40: (-90, 80), 50: (-90, 70)},
    **{60: (-100, 70), 70: (-110, 70), 80: (-110, 70), 90: (-90, 0), 100: (-70, -50)},
}
CENTERS = np.array([(a, b) for a, (first, last) in _GAMUT.items() for b in range(first, last + 1, STEP)], np.int64)


def _linear() -> np.ndarray:
    v = np.arange(256) / 255
    return np.rint(np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4) * ONE).astype(np.int32)


def _cie() -> np.ndarray:
    """Returns CIELAB's f, of float64 [KNOTS + 1] values of 0..1."""
    t = np.arange(KNOTS + 1) / KNOTS
    return np.where(t > (6 / 29) ** 3, np.cbrt(t), t * (29 / 6) ** 2 / 3 + 4 / 29)


def _bins() -> np.ndarray:
    """Returns the nearest bin of each square of the grid; of several as near, that of the smallest number."""
    grid = np.arange(-REACH, REACH + 1) * STEP
    squares = np.stack(np.meshgrid(grid, grid, indexing="ij"), axis=-1).reshape(-1, 1, 2)
    return np.square(squares - CENTERS).sum(2).argmin(1).astype(np.int32)


LINEAR = _linear()  # int32 [256]: linear light of each pixel value, in 1 / ONE
ROOT = _cie().astype(np.float32)  # [KNOTS + 1]: f
LIGHTNESS = np.maximum((116 * _cie() - 16) * 2.55, 0).astype(np.float32)  # [KNOTS + 1]: L*, scaled to 0..255
BINS = _bins()  # int32 [SIDE * SIDE]: the bin of each square of the grid, a before b


@functools.lru_cache(maxsize=64)
def on_device(device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns LINEAR, ROOT, LIGHTNESS and BINS as tensors on a device. They are cached: not to be written to."""
    linear, root, lightness, bins = (torch.tensor(table, device=device) for table in (LINEAR, ROOT, LIGHTNESS, BINS))
    return linear, root, lightness, bins
