"""Which image goes into which shard of a packed dataset, and the index that says so when all are written."""

import hashlib
import io
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ssl_core.data.dataset import Source, image_key
from ssl_core.data.decoding.decode import UNREADABLE
from ssl_core.data.duplicates import group_by_size, same_bytes
from ssl_core.data.packing.record import PARTS, PackIndex, PackPlan, ShardEntry, SplitEntry
from ssl_core.data.packing.shard import Packing, encode_image
from ssl_core.data.sampler import make_sampler
from ssl_core.data.split import Split
from ssl_core.errors import UserError
from ssl_core.storage.files import write_bytes

INDEX = "index.json"  # written last: its presence means that all the rest is there
TABLE = "packed.npy"  # [n, 5] int64, training images first: shard, offset, bytes, number in the source, label
# of images with several labels, in the same order: [n, classes] bool, eight in a byte: [n, ceil(classes / 8)] uint8
LABELS = "labels.npy"
SKIPPED = "skipped.txt"  # key, name and reason of each image of the source that is not in a shard
WORK = ".pack"  # what continuing needs
PLAN = f"{WORK}/plan.json"  # made before the first shard
SAMPLE = 32  # images that are encoded to estimate how many fit into a shard


def make_plan(source: Source, packing: Packing) -> PackPlan:
    """Makes the plan of a packed dataset: all that the shards depend on, so that a second attempt makes the same.

    Args:
        source: The dataset to pack.
        packing: How.
    """
    return PackPlan(
        options=packing,
        source=source.digest,
        duplicates=tuple(find_duplicates(source)) if packing.drop_duplicates else (),
        per_shard={part: _per_shard(getattr(source, part), packing) for part in PARTS},
    )


def check_same(earlier: PackPlan | PackIndex, source: Source, packing: Packing, folder: Path) -> None:
    """Checks that an earlier packing is of the same dataset and options.

    Args:
        earlier: What was planned, or is finished.
        source: The dataset to pack.
        packing: How.
        folder: Where, for messages.

    Raises:
        UserError: If something differs; it says what.
    """
    old, new = asdict(earlier.options), asdict(packing)
    changed = [name for name in new if old[name] != new[name] and not (name == "quality" and packing.lossless)]
    differ = [f"--{name.replace('_', '-')} {old[name]}, not {new[name]}" for name in changed]
    if earlier.source != source.digest:
        differ.append("from other images (another source, or files changed)")
    if differ:
        raise UserError(f"{folder} was packed with {', '.join(differ)}: choose another folder")


def assign_shards(source: Source, plan: PackPlan) -> list[tuple[str, str, np.ndarray]]:
    """Assigns images to shards, shuffled, so that reading shards one after the other does not give a class at a time.

    Args:
        source: The dataset to pack.
        plan: Of `make_plan`.

    Returns:
        Of each shard: its file's name, the part, and the numbers of its images in that part, [k] int64.
    """
    found = []
    for part in PARTS:
        shuffled = _shuffled(getattr(source, part))
        dropped = [number for where, number, _ in plan.duplicates if where == part]
        numbers = shuffled[~np.isin(shuffled, dropped)]
        pieces = -(-len(numbers) // plan.per_shard[part])
        found += [(part, piece) for piece in np.array_split(numbers, pieces)] if pieces else []
    return [(f"shard-{i:06d}.tar", part, numbers) for i, (part, numbers) in enumerate(found)]


def find_duplicates(source: Source) -> list[tuple[str, int, str]]:
    """Finds the images whose bytes an earlier image has; test images come first, as they must not be trained on.

    Args:
        source: The dataset; only images of equal size are read.

    Returns:
        Of each image that can be dropped: its part, its number there, and the key of the image that stays.
    """
    groups = [same for images in group_by_size(source) for same in same_bytes(source, images)]
    found = [(part, i, image_key(*same[0])) for same in groups for part, i in same[1:]]
    return sorted(found, key=lambda one: (one[0] == "train", one[1]))


def write_index(root: Path, source: Source, plan: PackPlan, records: list[dict]) -> PackIndex:
    """Writes the files beside the shards: packed.npy, labels.npy if images have several labels, skipped.txt and, last,
    index.json.

    Args:
        root: The folder of the shards, on a disk or in an object store.
        source: The dataset that was packed.
        plan: Of `make_plan`.
        records: Of all shards, in their order, as `finish_shard` returns them.

    Returns:
        What index.json says.

    Raises:
        UserError: If no training image could be packed.
        OSError: If the files cannot be written.
        StorageError: If an object store fails.
    """
    kept = [record for record in records if record["images"]]
    if not any(record["part"] == "train" for record in kept):
        raise UserError(f"none of the {len(source.train)} training images can be decoded: nothing is packed")
    rows = np.concatenate([np.insert(record["rows"], 0, shard, axis=1) for shard, record in enumerate(kept)])
    table_sha256, labels_sha256 = _write_array(root / TABLE, rows), ""
    if source.multilabel:
        labels = [getattr(source, record["part"]).labels[record["rows"][:, 2]] for record in kept]
        labels_sha256 = _write_array(root / LABELS, np.packbits(np.concatenate(labels), 1))
    lost = [entry for record in records for entry in record["skipped"]]
    twice = [
        (image_key(part, i), getattr(source, part).name(i), f"has the bytes of {first}")
        for part, i, first in plan.duplicates
    ]
    lines = ["\t".join(" ".join(word.split()) for word in entry) + "\n" for entry in [*lost, *twice]]
    write_bytes(root / SKIPPED, "".join(lines).encode(errors="backslashreplace"))
    fields = ("name", "images", "bytes", "sha256")
    index = PackIndex(
        options=plan.options,
        source=plan.source,
        size=min(source.size, plan.options.side),
        classes=source.classes,
        mean=_three(source.mean),
        std=_three(source.std),
        table=TABLE,
        table_sha256=table_sha256,
        labels_sha256=labels_sha256,
        splits={
            part: SplitEntry(
                shards=tuple(ShardEntry(**{name: one[name] for name in fields}) for one in kept if one["part"] == part)
            )
            for part in PARTS
        },
        images=len(rows),
        skipped=len(lost),
        duplicates=len(twice),
        source_bytes=sum(record["source_bytes"] for record in records),
    )
    index.write(root / INDEX)
    return index


def _write_array(path: Path, array: np.ndarray) -> str:
    """Writes an array as NumPy does, and returns the sha256 of the file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    write_bytes(path, file.getbuffer())
    return hashlib.sha256(file.getbuffer()).hexdigest()


def _three(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def _shuffled(split: Split) -> np.ndarray:
    return make_sampler(split, 0).at(np.arange(len(split)))[0] if len(split) else np.empty(0, np.int64)


def _per_shard(split: Split, packing: Packing) -> int:
    """Returns how many images make a shard of about the size asked for, estimated from a sample."""
    sizes = []
    for i in _shuffled(split)[:SAMPLE].tolist():
        try:
            sizes.append(len(encode_image(split, i, packing)))
        except UNREADABLE:
            continue
    mean = sum(sizes) / len(sizes) if sizes else 3 * packing.side**2
    return max(1, round(packing.shard_mb * 1e6 / (mean + 2048)))  # in a tar: two headers, two files rounded up
