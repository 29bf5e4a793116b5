"""Finds images that show the same although their bytes differ: saved again, resized, or recolored a little.

Each image is reduced to a perceptual hash: which of the 8 x 8 lowest frequencies of the cosine transform of its gray
values, at 32 x 32 pixels, are above their median (pHash, Zauner 2010). A pair is near if at most MAX_DISTANCE of the 64
bits differ and the colors of 8 x 8 cells correlate by at least MIN_CORRELATION, since other colors may be in the same
places.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssl_core.data.decoding.decode import UNREADABLE, read_image
from ssl_core.data.in_threads import in_threads
from ssl_core.data.split import Split
from ssl_core.errors import reason_of

MAX_DISTANCE, BITS = 4, 64  # how many bits of a hash of so many may differ
MIN_CORRELATION = 0.9  # of the colors of two images
MIN_CONTRAST = 2.0  # standard deviation of gray values, of 0..255, below which an image has nothing to compare
SIDE, LOW, CELLS = 32, 8, 8  # pixels an image is reduced to, frequencies and cells along a side
DECODED_SIDE = 64  # least pixels of a side that images are decoded to, which is quicker than to all of them
CANDIDATES = 2**20  # pairs that are compared at a time

FREQUENCIES = np.cos(np.pi * np.arange(LOW)[:, None] * (2 * np.arange(SIDE) + 1) / (2 * SIDE)).astype(np.float32)
GRAY = np.array([0.299, 0.587, 0.114], np.float32)


class Fingerprints(NamedTuple):
    """Describes images of a split for comparison.

    Attributes:
        ids: [n] int64, their numbers in the split.
        hashes: [n] uint64.
        colors: [n, 192] uint8, of 8 x 8 cells.
    """

    ids: np.ndarray
    hashes: np.ndarray
    colors: np.ndarray

    def rows(self, chosen: np.ndarray) -> "Fingerprints":
        """Returns those in some rows, given as their numbers or as a mask."""
        return Fingerprints(*(part[chosen] for part in self))


@dataclass
class Decoded:
    """What came of decoding images of a split.

    Attributes:
        prints: The fingerprints of those that have any contrast.
        plain: How many have none.
        unreadable: The number of each that could not be decoded, and why.
    """

    prints: Fingerprints
    plain: int = 0
    unreadable: dict[int, str] = field(default_factory=dict)


class NearPairs(NamedTuple):
    """Says which images of one split are near to which of another.

    Attributes:
        first: The number in one split of each image that is near to any, and the number in the other of the first.
        pairs: How many pairs there are.
    """

    first: dict[int, int]
    pairs: int


def fingerprints(
    split: Split, ids: np.ndarray, advance: Callable[[int], None] = lambda _: None, seconds: float | None = None
) -> Decoded:
    """Decodes images, as small as the comparison allows, and takes their fingerprints.

    Args:
        split: The split that they belong to.
        ids: Their numbers, [n] int64.
        advance: Gets how many more images are done, now and then.
        seconds: How long it may take, by the speed so far; None: as long as it needs.

    Raises:
        TimeoutError: If it would take longer.
        StorageError: If a store fails.
    """
    start, done, plain, unreadable = time.monotonic(), 0, 0, {}
    parts = [_hashed(ids[:0], np.zeros((0, SIDE, SIDE, 3), np.uint8))]
    for count, (found, failed) in in_threads(partial(_decode_some, split), ids):
        parts.append(found)
        unreadable |= failed
        plain += count - len(found.ids) - len(failed)
        done += count
        advance(count)
        if seconds is not None and (time.monotonic() - start) / done * len(ids) > seconds:
            raise TimeoutError
    prints = Fingerprints(*(np.concatenate(of) for of in zip(*parts)))
    return Decoded(prints, plain, unreadable)


def _decode_some(split: Split, ids: np.ndarray) -> tuple[Fingerprints, dict[int, str]]:
    if split.pixels is not None and split.pixels.shape[1:3] == (SIDE, SIDE):
        return _hashed(ids, split.pixels[ids]), {}
    pixels, read, failed = [], [], {}
    for i in ids.tolist():
        try:
            pixels.append(_reduced(split, i))
            read.append(i)
        except UNREADABLE as error:
            failed[i] = reason_of(error)
    return _hashed(np.array(read, np.int64), np.array(pixels, np.uint8).reshape(-1, SIDE, SIDE, 3)), failed


def _reduced(split: Split, i: int) -> np.ndarray:
    """Returns the pixels of an image, [SIDE, SIDE, 3] uint8; raises one of UNREADABLE, or StorageError."""
    if split.pixels is None:
        image = read_image(partial(split.open, i), DECODED_SIDE, levels=split.levels)
    else:
        image = Image.fromarray(split.pixels[i])
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _hashed(ids: np.ndarray, images: np.ndarray) -> Fingerprints:
    """Returns the fingerprints of images, [n, SIDE, SIDE, 3] uint8, without those that have no contrast."""
    gray = images @ GRAY
    contrast = gray.std((1, 2)) >= MIN_CONTRAST
    low = (FREQUENCIES @ gray @ FREQUENCIES.T).reshape(-1, BITS)
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)  # the first is the mean of all, far above the others
    hashes = np.packbits(bits, axis=1).view(np.uint64)[:, 0]
    step = SIDE // CELLS
    cells = images.reshape(-1, CELLS, step, CELLS, step, 3).mean((2, 4), dtype=np.float32)
    colors = cells.round().astype(np.uint8).reshape(-1, 3 * CELLS**2)
    return Fingerprints(ids[contrast], hashes[contrast], colors[contrast])


def near_pairs(some: Fingerprints, others: Fingerprints, seconds: float | None = None) -> NearPairs:
    """Finds the pairs of two sets of images that are near.

    Of two hashes in MAX_DISTANCE + 1 pieces that differ in MAX_DISTANCE bits, one piece is the same in both, so that
    only hashes with a common piece have to be compared (Manku et al. 2007). Equal fingerprints are compared once.

    Args:
        some: Of the images of one split.
        others: Of the images of another.
        seconds: How long it may take; None: as long as it needs.

    Raises:
        TimeoutError: If it takes longer.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    a_set, b_set = _distinct(some), _distinct(others)
    pairs = [np.zeros(0, np.int64)]
    for a, b in _candidates(a_set.prints.hashes, b_set.prints.hashes):
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError
        close = np.bitwise_count(a_set.prints.hashes[a] ^ b_set.prints.hashes[b]) <= MAX_DISTANCE
        a, b = a[close], b[close]
        alike = _correlation(a_set.prints.colors[a], b_set.prints.colors[b]) >= MIN_CORRELATION
        pairs.append(a[alike] * len(b_set.counts) + b[alike])
    a, b = np.divmod(np.unique(np.concatenate(pairs)), max(1, len(b_set.counts)))
    first = np.full(len(a_set.counts), len(others.ids))
    np.minimum.at(first, a, b_set.first[b])
    near = np.flatnonzero(first[a_set.of_image] < len(others.ids))
    found = dict(zip(some.ids[near].tolist(), others.ids[first[a_set.of_image[near]]].tolist()))
    return NearPairs(found, int((a_set.counts[a] * b_set.counts[b]).sum()))


class _Distinct(NamedTuple):
    """The distinct ones of n fingerprints.

    Attributes:
        prints: The u different ones.
        first: [u] the first image that has each.
        of_image: [n] which of them each image has.
        counts: [u] how many images have each.
    """

    prints: Fingerprints
    first: np.ndarray
    of_image: np.ndarray
    counts: np.ndarray


def _distinct(prints: Fingerprints) -> _Distinct:
    rows = np.concatenate([prints.hashes[:, None].view(np.uint8), prints.colors], axis=1)
    keys = np.ascontiguousarray(rows).view(f"V{rows.shape[1]}")[:, 0]
    _, first, of_image, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    return _Distinct(prints.rows(first), first, of_image, counts)


def _candidates(some: np.ndarray, others: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the rows of pairs of hashes, [n] and [m] uint64, that have a piece in common, about CANDIDATES at a time;
    a pair may come several times."""
    for low, high in pairwise(np.linspace(0, BITS, MAX_DISTANCE + 2).astype(int).tolist()):
        one, other = ((hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1) for hashes in (some, others))
        order = np.argsort(other)
        start, stop = (np.searchsorted(other, one, side, order) for side in ("left", "right"))
        counts = stop - start
        blocks = np.flatnonzero(np.diff(np.cumsum(counts) // CANDIDATES)) + 1
        for rows in np.split(np.arange(len(one)), blocks):
            a = np.repeat(rows, counts[rows])
            within = np.arange(len(a)) - np.repeat(np.cumsum(counts[rows]) - counts[rows], counts[rows])
            yield a, order[start[a] + within]


def _correlation(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the correlation of the colors of pairs of images, both [n, k] uint8, as [n] float32."""
    one, other = (colors - colors.mean(1, keepdims=True, dtype=np.float32) for colors in (some, others))
    length = np.sqrt((one**2).sum(1) * (other**2).sum(1))
    return (one * other).sum(1) / np.maximum(length, 1e-6)
