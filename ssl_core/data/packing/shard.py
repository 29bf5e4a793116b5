"""Packs images, made small, into a tar shard in the layout that webdataset and DALI read."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_core.data.dataset import image_key
from ssl_core.data.decoding.decode import UNREADABLE, read_image
from ssl_core.data.labeling import NO_LABEL
from ssl_core.data.split import Split
from ssl_core.errors import UserError, reason_of
from ssl_core.storage.files import exists, read_bytes, read_json, write_bytes, write_json


@dataclass(frozen=True, kw_only=True)
class Packing:
    """The options of packing; with the source, they determine the shards' bytes."""

    side: int = 256
    """short side in pixels; smaller images keep their size"""
    quality: int = 90
    """of the JPEGs, 1 to 100"""
    lossless: bool = False
    """lossless: uncompressed .ppm instead of .jpg"""
    shard_mb: int = 64
    """about how large a shard becomes, in 10^6 bytes"""
    drop_duplicates: bool = False
    """keep one of several images of the same bytes; of one in both parts, that in test"""

    def checked(self) -> "Packing":
        """Returns these options.

        Raises:
            UserError: If a value is out of range.
        """
        for name, low, high in (("side", 8, 4096), ("quality", 1, 100), ("shard_mb", 1, 1024)):
            if not low <= (value := getattr(self, name)) <= high:
                raise UserError(f"--{name.replace('_', '-')} is {value}, expected {low} to {high}")
        return self


def encode_image(split: Split, i: int, packing: Packing) -> bytes:
    """Encodes an image for a shard: upright, in RGB, with a short side of at most `packing.side`.

    Args:
        split: The images.
        i: Row of the image.
        packing: The side, and whether to write PPM or JPEG of which quality.

    Returns:
        The file's bytes.

    Raises:
        StorageError: If the images' store fails. One of UNREADABLE is raised if the image cannot be decoded.
    """
    # a large image is decoded at a fraction of its size, but enough for a sharp result
    image = read_image(partial(split.open, i), 2 * packing.side, levels=split.levels)
    short = min(image.size)
    if short > packing.side:
        width, height = (round(side * packing.side / short) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    file = io.BytesIO()
    image.save(file, "ppm") if packing.lossless else image.save(file, "jpeg", quality=packing.quality)
    return file.getvalue()


def write_shard(path: Path, split: Split, part: str, numbers: Iterable[int], packing: Packing) -> dict:
    """Writes images to a tar file, or no file if none of them can be decoded.

    A label is the number of a class: in a `.cls` file, or where images have several in `{"labels": […]}` of a `.json`
    file. An image without a label has neither.

    Args:
        path: The tar file, on a disk or in an object store.
        split: The images.
        part: "train" or "test".
        numbers: Rows of the images in the split.
        packing: How to encode them.

    Returns:
        The shard's record: name, part, images (how many), bytes and sha256; `rows`, [offset, bytes, number, label] of
        each image, with -1 for a label where images may have several; `skipped`, [key, name, reason] of each that
        cannot be decoded; `source_bytes`, how large all of them were.

    Raises:
        OSError: If the file cannot be written.
        StorageError: If the images' store fails.
    """
    rows, skipped, file = [], [], io.BytesIO()
    before, suffix = 0, "ppm" if packing.lossless else "jpg"
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for i in map(int, numbers):
            before += split.size(i)
            try:
                data = encode_image(split, i, packing)
            except UNREADABLE as error:
                skipped.append([image_key(part, i), split.name(i), reason_of(error)])
                continue
            key = image_key(part, i)
            several = split.labels.ndim == 2
            label = NO_LABEL if several else int(split.labels[i])
            rows.append([_add(tar, f"{key}.{suffix}", data), len(data), i, label])
            if several and split.labels[i].any():
                text = json.dumps({"labels": np.flatnonzero(split.labels[i]).tolist()})
                _add(tar, f"{key}.json", text.encode())
            elif label != NO_LABEL:
                _add(tar, f"{key}.cls", str(label).encode())
    if rows:
        write_bytes(path, file.getbuffer())
    sha256 = hashlib.sha256(file.getbuffer()).hexdigest()
    return dict(
        name=path.name,
        part=part,
        images=len(rows),
        bytes=len(file.getbuffer()),
        sha256=sha256,
        rows=rows,
        skipped=skipped,
        source_bytes=before,
    )


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Appends a file, with the same metadata for all, and returns where its bytes begin."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
    return tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def finish_shard(path: Path, record: Path, split: Split, part: str, numbers: Iterable[int], packing: Packing) -> dict:
    """Writes a shard and its record, unless both are there already and the shard is as the record says.

    Args:
        path: The tar file.
        record: The JSON file of its record.
        split: The images, as for `write_shard`.
        part: "train" or "test".
        numbers: Rows of the images in the split.
        packing: How to encode them.

    Returns:
        The record that `write_shard` returns, with `rows` as an array, [k, 4] int64, as there may be millions in all;
        and `kept`: whether the shard was there already.

    Raises:
        OSError: If a file cannot be written.
        StorageError: If the images' store fails.
        UserError: If the record is there and no JSON.
    """
    found = _finished_record(path, record)
    kept = found is not None
    if found is None:
        found = write_shard(path, split, part, numbers, packing)
        write_json(record, found)
    return {**found, "rows": np.array(found["rows"], np.int64).reshape(-1, 4), "kept": kept}


def _finished_record(path: Path, record: Path) -> dict | None:
    """Returns the record of a shard that is there as it says, or of one without images; None for any other."""
    found = read_json(record) if exists(record) else None
    if found is None or not found["images"]:
        return found
    same = exists(path) and hashlib.sha256(read_bytes(path)).hexdigest() == found["sha256"]
    return found if same else None
