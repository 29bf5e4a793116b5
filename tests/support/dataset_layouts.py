"""Writes the same few images as datasets in the layouts that people have them in."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import fsspec
import numpy as np
from PIL import Image

from support import parquet_files
from support.tar_files import write as write_tar


class Picture(NamedTuple):
    """An image and what is known of it.

    Attributes:
        pixels: [side, side, 3] uint8.
        labels: The names of its classes; none if it has no label.
        split: "train", "test" or "unlabeled".
    """

    pixels: np.ndarray
    labels: tuple[str, ...]
    split: str

    @property
    def png(self) -> bytes:
        file = io.BytesIO()
        Image.fromarray(self.pixels).save(file, "png")
        return file.getvalue()


def stl10(root: Path, pictures: Sequence[Picture]) -> str:
    """A folder for each split: train and test with folders of classes, unlabeled without."""
    for i, one in enumerate(pictures):
        _put(root / one.split / "/".join(one.labels) / f"{i}.png", one)
    return str(root)


def class_folders(root: Path, pictures: Sequence[Picture]) -> str:
    """Folders of classes, and one of unlabeled images beside them; no image is said to be a test image."""
    for i, one in enumerate(pictures):
        _put(root / ("/".join(one.labels) or "unlabeled") / f"{i}.png", one)
    return str(root)


def csv_table(root: Path, pictures: Sequence[Picture]) -> str:
    """A folder of images with a metadata.csv, in which images without a label have none; the column is asked for."""
    root.mkdir()
    with open(root / "metadata.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "kind", "photographer", "split"])
        for i, one in enumerate(pictures):
            _put(root / "images" / f"{i}.png", one)
            split = "train" if one.split == "unlabeled" else one.split
            table.writerow([f"images/{i}.png", "".join(one.labels), f"person {i % 3}", split])
    return f"{root}#kind"


def several_labels(root: Path, pictures: Sequence[Picture]) -> str:
    """A folder of images with a metadata.jsonl, in which labels are lists; those of images without are empty."""
    rows = []
    for i, one in enumerate(pictures):
        _put(root / f"{i}.png", one)
        split = "train" if one.split == "unlabeled" else one.split
        rows.append(json.dumps({"file_name": f"{i}.png", "tags": one.labels, "split": split}))
    (root / "metadata.jsonl").write_text("\n".join(rows))
    return str(root)


def parquet(root: Path, pictures: Sequence[Picture]) -> str:
    """Two Parquet shards of each split, as the Hub has them, of which `unlabeled` has -1 for a class."""
    names = sorted({label for one in pictures for label in one.labels})
    for split in ("train", "test", "unlabeled"):
        mine = [one for one in pictures if one.split == split]
        for shard in range(2):
            part = mine[shard::2]
            labels = [names.index(one.labels[0]) if one.labels else -1 for one in part]
            path = root / "data" / f"{split}-{shard:05d}-of-00002.parquet"
            features = {"label": parquet_files.classes(*names)}
            parquet_files.write(path, [one.png for one in part], features, groups=5, label=labels)
    return str(root)


def tars(root: Path, pictures: Sequence[Picture]) -> str:
    """Two tar shards, train and test, in which only some images of train have a label."""
    for split in ("train", "test"):
        members = []
        for i, one in enumerate(pictures):
            if (one.split == "test") == (split == "test"):
                members.append((f"{i:04d}.png", one.png))
                members += [(f"{i:04d}.cls", label.encode()) for label in one.labels]
        write_tar(root / f"{split}-000.tar", members)
    return str(root)


def on_s3(write: Callable[[Path, Sequence[Picture]], str]) -> Callable[[Path, Sequence[Picture]], str]:
    """The same in the bucket `bucket` of the S3 server that the environment names."""

    def put(root: Path, pictures: Sequence[Picture]) -> str:
        write(root, pictures)
        fsspec.filesystem("s3").put(f"{root}/", f"bucket/{root.name}/", recursive=True)
        return f"s3://bucket/{root.name}"

    return put


def _put(path: Path, one: Picture) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(one.png)
