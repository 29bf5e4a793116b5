"""`python -m benchmarks.loader FOLDER`: images a second, from files to a normalised float32 batch, against the peers.

Every reader takes the same images, a random square of each, resized, flipped by chance and normalised, with the same
number of threads or processes. A round reads the folder once with each; starting up and the first batch do not count.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks import machine
from benchmarks.timing import quantiles
from kernels.rotate import rotate
from kernels.sampling import Draw
from ssl_core.data.loader import training_batches
from ssl_core.data.source import Arrays, Source, open_source

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
SCALE, RATIO = (0.25, 1.0), (1.0, 1.0)  # of the peers' random crops: squares, as ours are


def ours(source: Source, batch: int, processes: int) -> Iterator[torch.Tensor]:
    """Batches as a task makes them: flipped and normalised by a kernel."""
    steps = range(len(source.train) // batch)
    options = dict(batch=batch, steps=steps, seed=0, rank=0, world=1, device=torch.device("cpu"), threads=processes)
    for read in training_batches(source, **options)[1]:
        flips = Draw(read.ids, read.epochs, 0).words("flip", 1)[:, 0] & 1
        none = torch.zeros_like(flips)
        yield rotate(read.images, none, flips, none[:, None].expand(-1, 2), size=source.size, mean=MEAN, std=STD)


def resident(source: Source) -> Source:
    """The same source with its images decoded, whole, in memory."""
    from ssl_core.data.loader import evaluation_batches

    read = list(evaluation_batches(source, "train", np.arange(len(source.train)), torch.device("cpu"), 2))
    images = torch.cat([batch.images for batch in read]).numpy()
    return Source(source.name, source.digest, source.size, Arrays(images, source.train.labels), source.test)


class Files(torch.utils.data.Dataset):
    """Paths through one of torchvision's ways to decode and its transforms."""

    def __init__(self, paths: list[Path], size: int, decode: str):
        from torchvision.transforms import v2

        self.paths, self.decode = paths, decode
        to_tensor = [v2.ToImage()] if decode == "pil" else []
        self.transform = v2.Compose([
            v2.RandomResizedCrop(size, scale=SCALE, ratio=RATIO, antialias=True), v2.RandomHorizontalFlip(),
            *to_tensor, v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([m / 255 for m in MEAN], [s / 255 for s in STD]),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor:
        if self.decode == "pil":
            from PIL import Image

            return self.transform(Image.open(self.paths[i]).convert("RGB"))
        from torchvision.io import ImageReadMode, decode_image, read_file

        return self.transform(decode_image(read_file(str(self.paths[i])), mode=ImageReadMode.RGB))


def dataloader(decode: str) -> Callable:
    def read(paths: list[Path], size: int, batch: int, processes: int) -> Iterator[torch.Tensor]:
        files = Files(paths, size, decode)
        return iter(torch.utils.data.DataLoader(files, batch, shuffle=True, drop_last=True, num_workers=processes))

    return read


def dali(paths: list[Path], size: int, batch: int, threads: int) -> Iterator[torch.Tensor]:
    """A pipeline of DALI's own reader, decoding only the crop, on the CPU."""
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.pytorch import DALIGenericIterator

    @pipeline_def(batch_size=batch, num_threads=threads, device_id=None, seed=0)
    def define():
        encoded, _ = fn.readers.file(files=[str(path) for path in paths], random_shuffle=True, name="files")
        crops = fn.decoders.image_random_crop(encoded, random_area=SCALE, random_aspect_ratio=RATIO)
        sized = fn.resize(crops, size=[size, size], interp_type=types.INTERP_LINEAR, antialias=True)
        mirror = fn.random.coin_flip()
        return fn.crop_mirror_normalize(sized, mirror=mirror, mean=MEAN, std=STD, dtype=types.FLOAT)

    iterator = DALIGenericIterator([define()], ["images"], reader_name="files")
    return (read[0]["images"] for read in iterator)


def readers(folder: str, packed: str | None, size: int, batch: int, workers: int) -> dict[str, Callable[[], Iterator]]:
    source = open_source(folder, size)
    paths, whole = source.train.paths, resident(source)
    found = {
        "tilespin folder": lambda: ours(source, batch, workers),
        "tilespin memory": lambda: ours(whole, batch, 0),
        "DataLoader, torchvision": lambda: dataloader("torchvision")(paths, size, batch, workers),
        "DataLoader, PIL": lambda: dataloader("pil")(paths, size, batch, workers),
    }
    if packed:
        small = open_source(packed, size)
        found["tilespin packed"] = lambda: ours(small, batch, workers)
    try:
        import nvidia.dali  # noqa: F401
    except ImportError:
        print("without DALI: it is not installed")
    else:
        found["DALI"] = lambda: dali(paths, size, batch, workers)
    return found


def images_per_second(read: Callable[[], Iterator]) -> float:
    """Of all batches but the first, which waits for processes to start."""
    batches = read()
    next(batches)
    start, images = time.perf_counter(), 0
    for batch in batches:
        images += len(batch)
    return images / (time.perf_counter() - start)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loader", description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="of images")
    parser.add_argument("--packed", help="the same images, packed")
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 224])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2, help="decoding processes, or DALI's threads")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--into", type=Path, default=machine.RESULTS)
    return parser.parse_args()


def main() -> None:
    asked = options()
    torch.set_num_threads(asked.workers)
    lines = []
    for size in asked.sizes:
        found = readers(asked.folder, asked.packed, size, asked.batch, asked.workers)
        rates: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(asked.rounds):
            for name, read in found.items():
                rates[name].append(images_per_second(read))
        print(
            f"\nto a batch of {asked.batch} at {size} px, {asked.workers} workers: images a second, median (p20, p80)"
        )
        for name, values in sorted(rates.items(), key=lambda item: -np.median(item[1])):
            low, median, high = (value / 1e3 for value in quantiles(values).values())
            lines.append({"reader": name, "size": size, "p20": low, "p50": median, "p80": high})
            print(f"{name:<26}{median:>9.0f}  ({low:.0f}, {high:.0f})")
    asked_for = {name: value for name, value in vars(asked).items() if name in ("batch", "workers", "rounds")}
    print(machine.keep("loader", {"machine": machine.describe(), **asked_for, "lines": lines}, asked.into))


if __name__ == "__main__":
    main()
