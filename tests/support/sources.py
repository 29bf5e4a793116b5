"""The same images in every kind of source that reads them from a disk, for tests that hold for each."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from ssl_core.data.dataset import open_source
from ssl_core.data.split import Split
from support import parquet_files, tar_files
from support.packing import pack

KINDS = ("files", "tars", "packed", "parquet")
PER_SHARD = 4  # images
each_source = pytest.mark.parametrize("stored", KINDS, indirect=True)
each_plain_source = pytest.mark.parametrize("stored", ("files", "tars", "parquet"), indirect=True)


def store(kind: str, place: Path, images: Mapping[str, bytes]) -> Split:
    """Stores images without labels, by names that end in their formats, and opens them.

    Packing leaves out what cannot be decoded; all others keep the order.
    """
    open_source.cache_clear()
    root, names = place / kind, sorted(images)
    shards = [names[start : start + PER_SHARD] for start in range(0, len(names), PER_SHARD)]
    if kind in ("files", "packed"):
        for name in names:
            (place / "files").mkdir(exist_ok=True)
            (place / "files" / name).write_bytes(images[name])
        if kind == "packed":
            pack(open_source(str(place / "files")), root, per_shard=PER_SHARD, lossless=True)
    for number, of in enumerate(shards):
        if kind == "tars":
            tar_files.write(root / f"{number:03d}.tar", [(name, images[name]) for name in of])
        elif kind == "parquet":
            # uneven row groups, and shards of other sizes
            parquet_files.write(root / f"{number:03d}.parquet", [images[name] for name in of], groups=1 + number % 3)
    return open_source(str(root)).train
