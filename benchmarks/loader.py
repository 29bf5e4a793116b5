"""`python -m benchmarks.loader FOLDER`: images a second, from JPEG files to a normalized float32 batch, and what
training waits for them.

Every reader takes the same images, a random square of each, resized, flipped by chance and normalized, with so many
processor cores and as many decoding threads or processes. A round reads all images with each, once, or several times
where that takes too little time; starting up and the first batch do not count. Without FOLDER the photos are made up:
realistic for codecs only.
"""

import argparse
import importlib
import itertools
import multiprocessing
import os
import pkgutil
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from pyarrow import parquet

import benchmarks.readers
from benchmarks.harness import environment as machine
from benchmarks.harness.timing import quantiles
from benchmarks.readers import MEAN, STD, Photos
from ssl_core.data.dataset import Source, open_source
from ssl_core.data.loaders.prefetch import TimedIterator
from ssl_core.data.loaders.select import training_batches
from ssl_core.data.packing.index import WORK, assign_shards, make_plan, write_index
from ssl_core.data.packing.shard import Packing, finish_shard
from ssl_core.encoders import build as encoders
from ssl_core.task import DataInfo, InputFormat, PretextModel
from ssl_core.tasks.rotnet import RotNet
from ssl_core.train import TrainConfig, train

MADE = 500  # photos, where none are given
WARM = 10  # training steps before the waiting is measured


def readers() -> dict[str, dict[str, Callable]]:
    """WAYS and DECODE of all modules in benchmarks/readers/ whose packages are installed."""
    found: dict[str, dict[str, Callable]] = {"to a batch": {}, "decode only": {}}
    for name in [module.name for module in pkgutil.iter_modules(benchmarks.readers.__path__)]:
        try:
            module = importlib.import_module(f"benchmarks.readers.{name}")
        except ImportError as error:
            print(f"without {name}: {error}")
            continue
        found["to a batch"] |= module.WAYS
        found["decode only"] |= getattr(module, "DECODE", {})
    return found


def make_photos(folder: Path, count: int = MADE) -> Path:
    """JPEGs of 500 x 375 px with about as many bytes as photos of that size."""
    chance = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        coarse = Image.fromarray(chance.integers(0, 256, (12, 16, 3), np.uint8)).resize((500, 375), Image.BICUBIC)
        noise = chance.normal(0, 12, (375, 500, 3))
        pixels = (np.asarray(coarse) * 0.7 + 40 + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04d}.jpg", quality=85)
    return folder


def pack(source: Source, place: Path, packing: Packing) -> Path:
    """What `tilespin pack` does, in this process."""
    plan = make_plan(source, packing)
    records = [
        finish_shard(place / name, place / WORK / f"{name}.json", getattr(source, part), part, numbers, packing)
        for name, part, numbers in assign_shards(source, plan)
    ]
    write_index(place, source, plan, records)
    return place


def tar_up(paths: tuple[Path, ...], place: Path, shards: int) -> tuple[Path, ...]:
    """The very files in tars of webdataset's layout."""
    place.mkdir()
    for number in range(shards):
        with tarfile.open(place / f"{number:03d}.tar", "w") as tar:
            for i, path in enumerate(paths[number::shards]):
                tar.add(path, f"{i:08d}.jpg")
    return tuple(sorted(place.iterdir()))


def parquet_up(paths: tuple[Path, ...], place: Path, shards: int) -> Path:
    """The very files in Parquet shards as the Hugging Face Hub has them, 100 in each row group."""
    place.mkdir()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for number in range(shards):
        rows = [{"bytes": path.read_bytes(), "path": path.name} for path in paths[number::shards]]
        parquet.write_table(
            pa.table({"image": pa.array(rows, kind)}), place / f"{number:03d}.parquet", row_group_size=100
        )
    return place


def once(way: Callable, photos: Photos, count: Callable) -> float:
    """Images a second of all batches but the first, which waits for processes to start and caches to fill."""
    batches = iter(way(photos))
    next(batches)
    start, images = time.perf_counter(), 0
    for batch in batches:
        images += count(batch)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return images / (time.perf_counter() - start)


def side_by_side(calls: dict[str, Callable[[], float]], rounds: int) -> dict[str, dict[str, float]]:
    """By name, the quantiles of what each call returns, one after the other in every round."""
    rates: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            rates[name].append(call())
    return {name: {q: v / 1e3 for q, v in quantiles(values).items()} for name, values in rates.items()}


def waiting(data: str, loader: str, photos: Photos, steps: int) -> dict:
    """RotNet's training of the default small encoder: the part of the time that it waits for data."""
    source = open_source(data, photos.size)
    encoder = encoders.build("convnet", photos.size, seed=0)
    config = RotNet.Config(batch=photos.batch)
    model = PretextModel(
        encoder, RotNet(config, encoders.describe(encoder, "convnet", photos.size), DataInfo(photos.size))
    )
    model = model.to(photos.device, memory_format=torch.channels_last)
    where = dict(rank=0, world=1, device=photos.device, threads=photos.cores)
    _, batches = training_batches(source, batch=photos.batch, steps=range(steps), seed=0, loader=loader, **where)
    waited, start = TimedIterator(batches), 0.0
    for step in train(model, waited, InputFormat(MEAN, STD), TrainConfig(steps=steps, seed=0, optim=config.optim)):
        if step.number == WARM:
            waited.waiting_share()
            start = time.perf_counter()
    float(step.metrics["loss"])  # waits for a GPU
    rate = (steps - WARM) * photos.batch / (time.perf_counter() - start)
    return {"loader": loader, "waited": waited.waiting_share(), "images_per_second": rate}


def measure(photos: Photos, rounds: int, stages: tuple[str, ...]) -> list[dict]:
    """The lines of these stages, for one size and one number of cores."""
    torch.set_num_threads(photos.cores)
    found, lines = readers(), []
    counts = {"to a batch": len, "decode only": int}
    about = {"size": photos.size, "cores": photos.cores}
    for stage in stages:
        title = f"{stage}, {photos.size} px" if stage == "to a batch" else stage
        print(f"\n{title}, {photos.cores} cores: images a second, median (p20, p80)", flush=True)
        calls = {name: partial(once, way, photos, counts[stage]) for name, way in found[stage].items()}
        for name, values in sorted(side_by_side(calls, rounds).items(), key=lambda item: -item[1]["p50"]):
            lines.append({"stage": stage, "reader": name, **about, **values})
            print(f"{name:<28}{values['p50']:>9.0f}  ({values['p20']:.0f}, {values['p80']:.0f})", flush=True)
    return lines


def measure_training(photos: Photos, steps: int) -> list[dict]:
    """The lines of what training waits for."""
    torch.set_num_threads(photos.cores)
    datas = {"folder": photos.folder, "packed": photos.packed, "packed raw": photos.raw}
    lines = []
    print(
        f"\nRotNet, convnet, {photos.size} px, {photos.cores} cores: images a second, and waiting for data", flush=True
    )
    for data, loader in (("folder", "cpu"), ("packed", "cpu"), ("packed raw", "cpu"), ("folder", "memory")):
        told = waiting(str(datas[data]), loader, photos, steps)
        lines.append(
            {"stage": "training", "reader": f"{loader}, {data}", "size": photos.size, "cores": photos.cores, **told}
        )
        print(f"{data + ', ' + loader:<28}{told['images_per_second']:>9.0f}  {told['waited']:.1%}", flush=True)
    return lines


def pinned(cores: int) -> ProcessPoolExecutor:
    """A process that, like all that it starts, may use so many cores only."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, context, os.sched_setaffinity, (0, allowed))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loader", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="of JPEGs")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 96, 224])
    parser.add_argument("--cores", type=int, nargs="+", default=sorted({1, len(os.sched_getaffinity(0))}))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--train-size", type=int, default=96, help="which of the sizes to train at")
    parser.add_argument("--steps", type=int, default=60, help="of each training")
    parser.add_argument("--into", type=Path, default=machine.RESULTS)
    return parser.parse_args()


def main() -> None:
    asked = options()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    lines = []
    with tempfile.TemporaryDirectory() as place:
        folder = asked.folder or make_photos(Path(place) / "made")
        source = open_source(str(folder))
        paths = tuple(path for path in source.train.paths if path.suffix.lower() in (".jpg", ".jpeg"))
        packed = pack(source, Path(place) / "packed", Packing())
        raw = pack(source, Path(place) / "raw", Packing(lossless=True))
        shards = 2 * max(asked.cores)
        tars = tar_up(paths, Path(place) / "tars", shards)
        parquets = parquet_up(paths, Path(place) / "parquet", shards)
        files = {"images": len(paths), "mean_bytes": round(float(np.mean([path.stat().st_size for path in paths])))}
        asked_for = {
            "batch": asked.batch,
            "rounds": asked.rounds,
            "steps": asked.steps,
            "made_up": asked.folder is None,
        }
        for cores, size in itertools.product(asked.cores, asked.sizes):
            photos = Photos(folder, paths, tars, parquets, packed, raw, size, asked.batch, cores, device)
            with pinned(cores) as process:
                stages = ("to a batch", "decode only") if size == asked.sizes[0] else ("to a batch",)
                lines += process.submit(measure, photos, asked.rounds, stages).result()
                if size == asked.train_size:
                    lines += process.submit(measure_training, photos, asked.steps).result()
            # after each size, so that a run that is cut short leaves what it has
            result = {"machine": machine.describe(), **asked_for, **files, "lines": lines}
            path = machine.keep("loader", result, asked.into)
    print(path)
    try:
        from benchmarks.plots import loader_plot
    except ImportError:
        print("without the plot: matplotlib is not installed")
    else:
        loader_plot.draw(path)


if __name__ == "__main__":
    main()
