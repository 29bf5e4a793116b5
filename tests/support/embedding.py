"""What tests of `tilespin embed` share."""

from pathlib import Path

import numpy as np
from pyarrow import parquet

from jobs.commands import embed

RANDOM = "timm:test_resnet=random"  # timm's smallest, of five stages
# of two classes, with a test split and an unlabeled image, in the order of their numbers
IN_ORDER = ("train/a/1.png", "train/a/2.png", "train/b/3.png", "unlabeled/4.png", "test/a/5.png", "test/b/6.png")


def run(encoder: str, data: Path, output: Path, *options) -> Path:
    embed.main([encoder, "--data", str(data), "--output", str(output), *map(str, options)])
    return output


def features_in(file: Path) -> np.ndarray:
    table = parquet.read_table(file)
    return table["features"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
