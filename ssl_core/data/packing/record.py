"""Defines the records of a packed dataset: index.json, which is a public contract, and the plan of its shards."""

from dataclasses import dataclass

from ssl_core.data.packing.shard import Packing
from ssl_core.storage.record import Record

PARTS = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class PackPlan(Record):
    """Holds all that the shards depend on, written before the first: a second attempt must make the same ones.

    Attributes:
        options: How images are packed.
        source: Digest of the dataset to pack.
        duplicates: (part, number, key of the image that stays) of each image that is left out.
        per_shard: By part, how many images make a shard.
    """

    options: Packing
    source: str
    duplicates: tuple[tuple[str, int, str], ...]
    per_shard: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """Describes one shard.

    Attributes:
        name: Of the tar file beside index.json.
        images: How many lie in it.
        bytes: Of the file.
        sha256: Of the file.
    """

    name: str
    images: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class SplitEntry:
    """Lists the shards of one part of the dataset, in the order of the table's rows."""

    shards: tuple[ShardEntry, ...]


@dataclass(frozen=True, kw_only=True)
class PackIndex(Record):
    """Describes a packed dataset. It is written last: its presence means that all the rest is there.

    Attributes:
        options: How images were packed.
        source: Digest of the dataset that was packed.
        size: Side in pixels that images are delivered at, unless another is asked for.
        classes: Names of the classes; empty without labels.
        mean: Of each channel of the training images, in pixel units.
        std: Of each channel of the training images, in pixel units.
        table: The file that says where each image lies.
        table_sha256: Of that file.
        labels_sha256: Of labels.npy, which says what labels each image has; empty where none has several.
        splits: By part, "train" and "test".
        images: How many were packed.
        skipped: How many could not be decoded.
        duplicates: How many were left out since another has the same bytes.
        source_bytes: How large all images were before.
    """

    options: Packing
    source: str
    size: int
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    table: str
    table_sha256: str
    splits: dict[str, SplitEntry]
    images: int
    skipped: int
    duplicates: int
    source_bytes: int
    labels_sha256: str = ""

    def part(self, name: str) -> tuple[ShardEntry, ...]:
        """Returns the shards of a part, "train" or "test"."""
        return self.splits[name].shards

    def problem(self) -> str | None:
        """Returns what is out of range and cannot have been written by `tilespin pack`, or None."""
        if set(self.splits) != set(PARTS) or not self.part("train"):
            return "no shards to train on"
        for shard in (shard for part in PARTS for shard in self.part(part)):
            for what, count in (("images", shard.images), ("bytes", shard.bytes)):
                if not 0 < count < 2**62:
                    return f"{what} of a shard are {count!r:.40}"
            if not shard.name.endswith(".tar") or "/" in shard.name:
                return f"a shard has the name {shard.name!r:.40}"
        if not all(8 <= side <= 4096 for side in (self.size, self.options.side)):
            return "a size is not 8 to 4096 pixels"
        for what, values, least in (("mean", self.mean, 0), ("std", self.std, 1e-3)):
            if not all(least <= value <= 255 for value in values):
                return f"{what} is {values!r:.40}"
        return None
