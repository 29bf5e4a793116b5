"""`python -m benchmarks.kernels`: every image kernel against plain torch on this machine, side by side.

Rounds alternate between the two, so that a noisy neighbour hurts both; the ratio of the medians is what counts.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch

from benchmarks import eager, machine
from kernels.crop_flip import crop_flip
from kernels.erase import erase
from kernels.photometric import photometric
from kernels.rotate import rotate, rotate_all
from kernels.shuffle_tiles import shuffle_tiles

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
SHAPES = ((32, 64), (32, 256), (96, 64), (224, 32))  # (side, batch)
ROUNDS = 30


def cases(size: int, batch: int, device: str) -> dict[str, tuple[Callable, Callable]]:
    """name: (kernel, plain torch), on the same random images and labels."""
    draw = torch.Generator().manual_seed(0)

    def integers(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, high, shape, generator=draw).to(device)

    images = integers(256, batch, size, size, 3).to(torch.uint8)
    turns, none, zero = integers(4, batch), integers(1, batch), integers(1, batch, 2)
    options = dict(mean=MEAN, std=STD)
    grid = 3 if size >= 96 else 2
    cell = size // grid
    tile = cell * 3 // 4
    index = torch.arange(grid * grid, device=device)
    cells = torch.stack([index // grid, index % grid], 1) * cell
    corners = cells + integers(cell - tile + 1, batch, grid * grid, 2)
    orders = torch.argsort(integers(2**20, batch, grid * grid), dim=1)
    boxes = torch.cat([integers(size // 2, batch, 2, 2), size // 4 + integers(size // 4, batch, 2, 2)], 2)
    # boxes of a half to the whole of the image, and mild colour jitter
    side = size // 2 + integers(size // 2, batch, 1)
    place = (integers(2**20, batch, 2) * (size - side + 1)) >> 20
    windows, flips = torch.cat([place, side, side], 1), integers(2, batch)
    factors = torch.rand(batch, 4, generator=draw).to(device) * 0.8 + torch.tensor([0.6, 0.6, 0.6, -0.4], device=device)
    jitter = torch.argsort(integers(2**20, batch, 4), dim=1)
    field, shifts = integers(256, batch, 0, 0), integers(1, batch, 3, 2)
    return {
        "rotate": (
            lambda: rotate(images, turns, none, zero, size=size, **options),
            lambda: eager.rotate(images, turns, MEAN, STD),
        ),
        "rotate_all": (
            lambda: rotate_all(images, none, zero, size=size, **options),
            lambda: eager.rotate_all(images, MEAN, STD),
        ),
        "shuffle_tiles": (
            lambda: shuffle_tiles(images, orders, corners, shifts, none, tile=tile, standardise=True, **options),
            lambda: eager.shuffle_tiles(images, orders, corners, tile),
        ),
        "erase": (
            lambda: erase(images, none, zero, boxes, field, none, size=size, **options),
            lambda: eager.erase(images, boxes, MEAN, STD),
        ),
        "crop_flip": (
            lambda: crop_flip(images, flips, windows, size=size, **options),
            lambda: eager.crop_flip(images, flips, windows, size, MEAN, STD),
        ),
        "photometric": (
            lambda: photometric(images, factors, jitter, none, **options),
            lambda: eager.photometric(images, factors, jitter, MEAN, STD),
        ),
    }


def seconds(call: Callable, device: str) -> float:
    """One call, the device's work included."""
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    rows = []
    print(f"{'kernel':<14} {'px':>4} {'batch':>5} {'kernel ms':>10} {'torch ms':>10} {'times':>6}")
    for size, batch in SHAPES:
        for name, (ours, plain) in cases(size, batch, device).items():
            torch.testing.assert_close(ours(), plain(), rtol=1e-3, atol=1e-3)  # also the warm-up
            taken = [(seconds(ours, device), seconds(plain, device)) for _ in range(ROUNDS)]
            a, b = (1e3 * statistics.median(column) for column in zip(*taken))
            rows.append({"kernel": name, "size": size, "batch": batch, "kernel_ms": a, "torch_ms": b, "ratio": b / a})
            print(f"{name:<14} {size:>4} {batch:>5} {a:>10.3f} {b:>10.3f} {b / a:>6.1f}")
    result = {"machine": machine.describe(), "rounds": ROUNDS, "median_of": rows}
    print(machine.keep(f"kernels-{torch.get_num_threads()}-threads", result))


if __name__ == "__main__":
    main()
