"""Packing: images made small and written into one tar shard, in the layout that webdataset and DALI read."""

import hashlib
import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_core.data.dataset import Arrays, Split, image_key
from ssl_core.data.decoding.decode import UNREADABLE, read_image
from ssl_core.errors import UserError
from ssl_core.storage.files import read_json, write_bytes, write_json


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How images are packed: with the source, all that decides the shards' bytes."""

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
        """Raises UserError for impossible values."""
        for name, low, high in (("side", 8, 4096), ("quality", 1, 100), ("shard_mb", 1, 1024)):
            if not low <= (value := getattr(self, name)) <= high:
                raise UserError(f"--{name.replace('_', '-')} is {value}, expected {low} to {high}")
        return self


def read_image_bytes(split: Split, i: int) -> bytes:
    """The bytes of image `i` as its source has them. Raises OSError if they cannot be read."""
    if isinstance(split, Arrays):
        return split.images[i].tobytes()
    with split.open(i) as file:
        return file.read()


def image_bytes(split: Split, i: int) -> int:
    """len(content(split, i)) without reading it; 0 if there is no such file any more."""
    return split.images[i].nbytes if isinstance(split, Arrays) else split.size(i)


def encode_image(split: Split, i: int, packing: Packing) -> bytes:
    """Image `i` as the shard holds it: upright RGB, its short side at most `packing.side`.

    Raises one of UNREADABLE if it cannot be decoded.
    """
    if isinstance(split, Arrays):
        image = Image.fromarray(split.images[i])
    else:  # a large JPEG is decoded at a fraction of its size, but enough for a sharp result
        image = read_image(partial(split.open, i), 2 * packing.side, levels=split.levels)
    short = min(image.size)
    if short > packing.side:
        width, height = (round(side * packing.side / short) for side in image.size)
        image = image.resize((width, height), Image.LANCZOS, reducing_gap=3.0)
    file = io.BytesIO()
    image.save(file, "ppm") if packing.lossless else image.save(file, "jpeg", quality=packing.quality)
    return file.getvalue()


def write_shard(path: Path, split: Split, part: str, numbers: Iterable[int], packing: Packing) -> dict:
    """Writes images `numbers` of `split` to the tar file `path`, none if none can be decoded -> its record.

    The record: name, images, bytes and sha256 of the shard; `rows`, [offset, bytes, number, label] of each image;
    `skipped`, [key, name, reason] of each that cannot be decoded; `source_bytes`, how large all of them were.
    """
    rows, skipped, file = [], [], io.BytesIO()
    before, suffix = 0, "ppm" if packing.lossless else "jpg"
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for i in map(int, numbers):
            before += image_bytes(split, i)
            try:
                data = encode_image(split, i, packing)
            except UNREADABLE as error:
                skipped.append([image_key(part, i), image_name(split, i), str(error) or type(error).__name__])
                continue
            label = int(split.labels[i])
            rows.append([_add(tar, f"{image_key(part, i)}.{suffix}", data), len(data), i, label])
            if label >= 0:
                _add(tar, f"{image_key(part, i)}.cls", str(label).encode())
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


def image_name(split: Split, i: int) -> str:
    """What messages call image `i` of any split."""
    return f"image {i}" if isinstance(split, Arrays) else split.name(i)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Appends a file whose metadata are always the same -> where its bytes begin."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
    return tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def finish_shard(path: Path, record: Path, *rest) -> dict:
    """write_shard(path, *rest), unless `record` is there and the shard is as it says; leaves the record.

    The result has one more entry, `kept`: whether the shard was there already; its rows are an array, for there may
    be millions in all.
    """
    kept_record = read_json(record) if record.exists() else None
    kept = kept_record is not None and (
        not kept_record["images"] or (path.exists() and _sha256(path) == kept_record["sha256"])
    )
    if not kept:
        kept_record = write_shard(path, *rest)
        write_json(record, kept_record)
    return {**kept_record, "rows": np.array(kept_record["rows"], np.int64).reshape(-1, 4), "kept": kept}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
