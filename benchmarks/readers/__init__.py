"""Ways from JPEG files to normalized float32 batches: one file each, Tilespin's own and those it is compared with.

A module has `WAYS`: by name, a function that takes the `Photos` and returns an iterator over float32 batches
[b, 3, size, size] on the device, one pass over all images (several where one takes too little time), each with a
random square crop and flip; and, where that can be had alone, `DECODE`: a function that decodes every image whole, to
uint8, and yields how many it has done. A file whose package is not installed is left out.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SCALE, RATIO = (0.25, 1.0), (1.0, 1.0)  # of the crops: squares, as Tilespin's are


@dataclass(frozen=True)
class Photos:
    """What is read, and how: `tars` are webdataset shards of the same files, `parquet` a folder of Parquet
    shards of them, `packed` and `raw` what `tilespin pack` made of them by default and with --lossless."""

    folder: Path
    paths: tuple[Path, ...]
    tars: tuple[Path, ...]
    parquet: Path
    packed: Path
    raw: Path
    size: int
    batch: int
    cores: int  # decoding threads or processes
    device: torch.device
