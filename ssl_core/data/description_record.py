"""Defines the record that `tilespin data --json` writes."""

from dataclasses import dataclass, field

from ssl_core.storage.record import Record

Size = tuple[int, int]  # width and height in pixels


@dataclass(frozen=True, kw_only=True)
class ImageSizes:
    """Says how large images are, as they are decoded.

    Attributes:
        smallest: Width and height of the one with the fewest pixels.
        median: Of the widths, and of the heights.
        largest: Width and height of the one with the most pixels.
        smaller_than_size: How many have a side that is shorter than images are delivered at.
    """

    smallest: Size
    median: Size
    largest: Size
    smaller_than_size: int


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """Names an image that cannot be decoded.

    Attributes:
        name: As messages call it.
        reason: Why, in one line.
    """

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class SplitDescription:
    """Describes the training or the test images.

    Attributes:
        images: How many there are.
        labeled: How many have a label.
        per_class: How many images each class has; one with several labels counts in each.
        looked_at: How many images' headers were read. All below is about these.
        decoded: How many of them were tried to decode; those whose header cannot be read are among them.
        bytes: Of all files; of images that are decoded in memory, of the pixels.
        formats: How many images have each format.
        modes: How many have each of Pillow's modes and each number of bits.
        sizes: How large they are; None if no header could be read.
        unreadable: All that cannot be decoded, as far as was looked.
        pixels: How many pixels of the masks each class has, where there are masks.
        void: How many pixels of the masks are of no class.
    """

    images: int
    labeled: int
    per_class: dict[str, int]
    looked_at: int
    decoded: int
    bytes: int
    formats: dict[str, int]
    modes: dict[str, int]
    sizes: ImageSizes | None
    unreadable: tuple[Unreadable, ...]
    pixels: dict[str, int] = field(default_factory=dict)
    void: int = 0


@dataclass(frozen=True, kw_only=True)
class ExactCopies:
    """Says which images are there twice, byte for byte, of those that were looked at.

    Attributes:
        train_repeated: Training images that equal an earlier one.
        train_relabeled: Groups of equal training images that do not all have the same label.
        test_repeated: Test images that equal an earlier one.
        test_in_train: Test images that equal a training image.
        test_relabeled: Of these, such with another label there.
        examples: Names of the first few, each with a training image of the same bytes.
    """

    train_repeated: int
    train_relabeled: int
    test_repeated: int
    test_in_train: int
    test_relabeled: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class NearCopies:
    """Says which test images look like training images although their bytes differ.

    Attributes:
        test_compared: Test images that were compared; copies to the byte are not among them.
        train_compared: Training images that they were compared with.
        without_contrast: Decoded images that have nothing to compare.
        most_bits: Bits of the perceptual hash that may differ in a pair.
        of_bits: How many it has.
        least_correlation: Of the colors of a pair, of 8 x 8 cells.
        test_found: Test images that are in a pair.
        pairs: How many pairs there are.
        examples: Names of the first few, each with a training image.
    """

    test_compared: int
    train_compared: int
    without_contrast: int
    most_bits: int
    of_bits: int
    least_correlation: float
    test_found: int
    pairs: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class DatasetRecord(Record):
    """Describes a dataset.

    Attributes:
        data: How it was asked for.
        name: What it is called.
        digest: Names its content and order.
        size: The side in pixels that training would resize images to.
        summary: How it was understood, in one line.
        multilabel: Whether an image may have several labels.
        classes: How many there are; 0 without labels.
        splits: By "train" and "test"; without a split that has no images.
        exact: Copies to the byte.
        near: Near copies between test and training images; None if they were not looked for.
    """

    data: str
    name: str
    digest: str
    size: int
    summary: str
    multilabel: bool
    classes: int
    splits: dict[str, SplitDescription]
    exact: ExactCopies
    near: NearCopies | None
