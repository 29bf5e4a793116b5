"""Defines the records of features: what they are of, which their file and the folder of its parts say, and a part's."""

from dataclasses import asdict, dataclass

from ssl_core.errors import UserError
from ssl_core.storage.record import Record


@dataclass(frozen=True, kw_only=True)
class EmbeddingRecord(Record):
    """Says what features are of: all that they depend on, so that equal records mean equal features.

    Attributes:
        encoder: A name for people, such as timm:resnet18.
        architecture: The encoder's name for `ssl_core.encoders.build.build`.
        encoder_digest: The sha256 of its weights and buffers.
        stage: The number of the stage, from 1, shallow to deep.
        pool: "mean", "2x2" or "map".
        normalization: "dataset": pixels are standardized by `mean` and `std`; "image": each image's by its own.
        mean: Of each channel, of 0..255.
        std: Of each channel, in the same units.
        width: How many numbers the features of an image have.
        data: The dataset's name.
        data_digest: Names its images and their order.
        classes: Their names by number; none without labels.
        size: Side of the images in pixels.
        split: "all", "train", "test" or "unlabeled".
        images: How many that are, with those that cannot be decoded.
        batch: Images that are computed at once, at most.
        shard: Images of a part, at most.
    """

    encoder: str
    architecture: str
    encoder_digest: str
    stage: int
    pool: str
    normalization: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    width: int
    data: str
    data_digest: str
    classes: tuple[str, ...]
    size: int
    split: str
    images: int
    batch: int
    shard: int

    @property
    def parts(self) -> int:
        """Returns the number of parts."""
        return -(-self.images // self.shard)

    def document(self) -> dict:
        """Returns what JSON has of this record."""
        return {**asdict(self), "version": self.VERSION}

    def check_same(self, found: "EmbeddingRecord", place: str) -> None:
        """Checks that features that are there already are these.

        Args:
            found: What is there.
            place: Where, for the message.

        Raises:
            UserError: If it is something else; it says what.
        """
        if found == self:
            return
        old, new = found.document(), self.document()
        first = next(name for name in new if old[name] != new[name])
        if first in ("encoder", "architecture", "encoder_digest"):
            differs = f"another encoder ({found.encoder})"
        elif first in ("data", "data_digest", "classes"):
            differs = f"other images ({found.data}, or its files have changed)"
        else:
            differs = f"{first} {_short(old[first])}, not {_short(new[first])}"
        raise UserError(f"{place} is of {differs}: remove it, or choose another --output")


@dataclass(frozen=True, kw_only=True)
class PartRecord(Record):
    """Describes a part. It is written after the part's features: its presence means that they are there.

    Attributes:
        images: How many images have features in it.
        skipped: Numbers of the images that cannot be decoded.
    """

    images: int
    skipped: tuple[int, ...]


def _short(value: object) -> str:
    return " ".join(f"{one:.1f}" for one in value) if isinstance(value, (list, tuple)) else str(value)
