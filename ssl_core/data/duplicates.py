"""Images of a dataset that are the same: the same bytes of a file, or the same pixels where there are no files."""

import hashlib
import time
from collections import defaultdict
from dataclasses import dataclass

from ssl_core.data.dataset import Packed, Source
from ssl_core.data.packing.shard import image_bytes, image_name, read_image_bytes
from ssl_core.data.remote import RemoteFiles

Image = tuple[str, int]  # the part of the dataset, "test" or "train", and the number in it
TIME_LIMIT_S = 20.0  # that looking for copies may take
MAX_PAIRS = 2  # pairs that are named


def group_by_size(source: Source) -> list[list[Image]]:
    """Images of equal size in bytes, test images first: only these can be copies of each other. Those of one size only
    are not listed, nor empty files, nor those that are gone."""
    found: dict[int, list[Image]] = defaultdict(list)
    for part in ("test", "train"):
        split = getattr(source, part)
        for i in range(len(split)):
            found[image_bytes(split, i)].append((part, i))
    return [images for size, images in found.items() if size and len(images) > 1]


def same_bytes(source: Source, images: list[Image], deadline: float | None = None) -> list[list[Image]]:
    """Which of `images` have the same bytes, in their order; what cannot be read is like nothing.

    Raises TimeoutError if that is not known at `deadline`, by time.monotonic().
    """
    found: dict[bytes, list[Image]] = defaultdict(list)
    for part, i in images:
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError
        try:
            found[hashlib.sha256(read_image_bytes(getattr(source, part), i)).digest()].append((part, i))
        except (OSError, ValueError):  # packing or evaluating comes to it again, and names it
            continue
    return [same for same in found.values() if len(same) > 1]


@dataclass(frozen=True)
class Copies:
    """Test images that are in the training part, too: what they score may be remembered and not recognized."""

    test_images: int
    compared: int  # test images that were looked at; the others took too long, or lie in a store
    found: int  # of these, copies of training images
    relabeled: int  # of these, such with another label there
    pairs: tuple[tuple[str, str], ...]  # names of the first few, with a training image of the same bytes
    remote: bool = False  # whether they lie in a store, from where nothing is fetched for this


def find_copies(source: Source, seconds: float = TIME_LIMIT_S) -> Copies:
    """Looks for test images that are copies of training images, byte for byte, for at most about `seconds`. Only images
    are read whose size an image of the other part has, those of rare sizes first: most test images for the time."""
    total = len(source.test)
    if isinstance(source.train, RemoteFiles) or (isinstance(source.train, Packed) and source.train.windowed):
        return Copies(total, 0, 0, 0, (), remote=True)
    deadline, unknown, found = time.monotonic() + seconds, 0, {}
    for images in sorted(group_by_size(source), key=len):
        asked = sum(part == "test" for part, _ in images)
        if not 0 < asked < len(images):
            continue
        try:
            groups = same_bytes(source, images, deadline)
        except TimeoutError:
            unknown += asked
            continue
        for same in groups:
            trained = [i for part, i in same if part == "train"]
            found |= {i: trained for part, i in same if part == "test" and trained}
    train, test = source.train.labels, source.test.labels
    relabeled = sum(any(train[j] != test[i] for j in trained) for i, trained in found.items())
    pairs = tuple(
        (image_name(source.test, i), image_name(source.train, found[i][0])) for i in sorted(found)[:MAX_PAIRS]
    )
    return Copies(total, total - unknown, len(found), relabeled, pairs)
