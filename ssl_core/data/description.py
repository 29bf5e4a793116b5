"""Describes a dataset before anybody trains on it: what is in it, what cannot be read, and what is there twice."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ssl_core.data.dataset import Source
from ssl_core.data.description_record import (
    DatasetRecord,
    ExactCopies,
    ImageSizes,
    NearCopies,
    SplitDescription,
    Unreadable,
)
from ssl_core.data.duplicates import group_by_size, has_other_label, same_bytes, trained_on
from ssl_core.data.header_scan import Headers, scan_headers
from ssl_core.data.near_duplicates import BITS, MAX_DISTANCE, MIN_CORRELATION, Decoded, fingerprints, near_pairs
from ssl_core.data.split import Split
from ssl_core.data.summary import summary
from ssl_core.errors import UserError

PARTS = ("train", "test")
REMOTE_SAMPLE = 1000  # images of each split that are looked at if they have to be fetched
DECODED_SAMPLE = 1000  # images of each split that are decoded in any case
EXAMPLES = 5  # pairs that are named
Report = Callable[[str, int, int], None]  # gets what is being done, how many images are done, and of how many


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much of a dataset is looked at."""

    sample: int | None = None
    """look at so many images of each split; 0: at all of them; default: at all that lie on a disk as files or in tar
    files, and at 1,000 of those that have to be fetched from a store or unpacked from Parquet"""
    decode: bool = False
    """decode all images that are looked at, which takes about as long as an epoch"""
    near_duplicates: int = 20_000
    """compare at most so many test images with so many training images by what they show; 0: none"""

    def checked(self) -> "Effort":
        """Returns it. Raises UserError for numbers below 0."""
        for name, value in (("sample", self.sample or 0), ("near-duplicates", self.near_duplicates)):
            if value < 0:
                raise UserError(f"--{name} is {value}, expected 0 or more")
        return self

    def compared(self, split: Split) -> int:
        """Returns how many images of a split are compared, at most; all where they are decoded in memory anyway."""
        return len(split) if split.pixels is not None and self.near_duplicates else self.near_duplicates


def looked_at(source: Source, effort: Effort) -> Source:
    """Returns the part of a dataset that is looked at.

    Of images that have to be fetched in shards it is the first ones, so that few shards are, else evenly spaced ones.
    """
    return replace(source, **{part: _sample(getattr(source, part), effort.sample) for part in PARTS})


def _sample(split: Split, count: int | None) -> Split:
    count = REMOTE_SAMPLE if count is None and split.remote else count or len(split)
    if count >= len(split):
        return split
    return split.subset(np.arange(count) if split.fetched_shards() else _evenly(np.arange(len(split)), count))


def describe(source: Source, seen: Source, data: str, effort: Effort, report: Report) -> DatasetRecord:
    """Reads the headers of images, decodes some, and compares them.

    Args:
        source: The dataset.
        seen: The part of it that is looked at, see `looked_at`.
        data: How the dataset was asked for.
        effort: How much is looked at.
        report: Gets how far it is.

    Raises:
        StorageError: If a store fails.
    """
    headers, decoded, asked = {}, {}, {}
    for part in PARTS:
        split: Split = getattr(seen, part)
        advance = _Progress(report, f"headers of {part} images", len(split))
        headers[part] = scan_headers(split, np.arange(len(split)), advance)
    for part in PARTS:
        split = getattr(seen, part)
        whole = np.setdiff1d(np.arange(len(split)), list(headers[part].unreadable))
        compared = effort.compared(split) if len(seen.test) else 0
        asked[part] = whole if effort.decode else _evenly(whole, max(DECODED_SAMPLE, compared))
        decoded[part] = fingerprints(
            split, asked[part], _Progress(report, f"pixels of {part} images", len(asked[part]))
        )
    copies, in_train = _exact(seen, report)
    return DatasetRecord(
        data=data,
        name=source.name,
        digest=source.digest,
        size=source.size,
        summary=summary(source),
        multilabel=source.multilabel,
        classes=len(source.classes),
        splits={
            part: _split(source, seen, part, headers[part], decoded[part], len(asked[part]))
            for part in PARTS
            if len(getattr(source, part))
        },
        exact=copies,
        near=_near(seen, decoded, in_train, effort) if effort.near_duplicates and len(seen.test) else None,
    )


class _Progress:
    """Adds up how many images of a piece of work are done."""

    def __init__(self, report: Report, what: str, total: int):
        self.report, self.what, self.total, self.done = report, what, total, 0
        if total:
            report(what, 0, total)

    def __call__(self, count: int) -> None:
        self.done += count
        self.report(self.what, self.done, self.total)


def _split(source: Source, seen: Source, part: str, headers: Headers, found: Decoded, asked: int) -> SplitDescription:
    whole, split = getattr(source, part), getattr(seen, part)
    counts = _counts(whole.labels, len(source.classes))
    failed = sorted((headers.unreadable | found.unreadable).items())
    masks = source.masks
    *pixels, void = masks.pixels[part].tolist() if masks else [0]
    return SplitDescription(
        images=len(whole),
        labeled=int(whole.labeled.sum()) if source.classes else 0,
        per_class=dict(zip(map(_quoted, source.classes), counts.tolist())),
        looked_at=len(split),
        decoded=asked + len(headers.unreadable),
        bytes=headers.bytes,
        formats=dict(headers.formats.most_common()),
        modes=dict(headers.modes.most_common()),
        sizes=_sizes(headers.sizes, source.size) if len(headers.sizes) else None,
        unreadable=tuple(Unreadable(name=_shown(split, i), reason=_one_line(why)) for i, why in failed),
        pixels=dict(zip(map(_quoted, masks.classes), pixels)) if masks else {},
        void=void,
    )


def _counts(labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns how many images each class has, [classes] int64; an image with several counts in each of its classes."""
    return labels.sum(0) if labels.ndim == 2 else np.bincount(labels[labels >= 0], minlength=classes)


def _sizes(sizes: np.ndarray, side: int) -> ImageSizes:
    order = np.argsort(sizes.prod(1), kind="stable")
    median = np.median(sizes, axis=0).round().astype(np.int64)
    smallest, middle, largest = (tuple(size.tolist()) for size in (sizes[order[0]], median, sizes[order[-1]]))
    return ImageSizes(
        smallest=smallest, median=middle, largest=largest, smaller_than_size=int((sizes.min(1) < side).sum())
    )


def _exact(seen: Source, report: Report) -> tuple[ExactCopies, dict[int, list[int]]]:
    """Returns what is there twice, byte for byte, and the test images that training images equal, with these."""
    groups, candidates = [], group_by_size(seen)
    advance = _Progress(report, "bytes of images of equal size", sum(map(len, candidates)))
    for images in candidates:
        groups += same_bytes(seen, images)
        advance(len(images))
    in_train = trained_on(groups)
    repeated = {part: [[i for of, i in same if of == part] for same in groups] for part in PARTS}
    labels = seen.train.labels
    return ExactCopies(
        train_repeated=sum(max(0, len(same) - 1) for same in repeated["train"]),
        train_relabeled=sum(
            bool(np.any(labels[same] != labels[same[0]])) for same in repeated["train"] if len(same) > 1
        ),
        test_repeated=sum(max(0, len(same) - 1) for same in repeated["test"]),
        test_in_train=len(in_train),
        test_relabeled=sum(has_other_label(seen, i, trained) for i, trained in in_train.items()),
        examples=_named(seen, {i: trained[0] for i, trained in in_train.items()}),
    ), in_train


def _near(seen: Source, decoded: dict[str, Decoded], in_train: dict[int, list[int]], effort: Effort) -> NearCopies:
    prints = {part: found.prints for part, found in decoded.items()}
    compared = {part: _evenly(of.ids, effort.compared(getattr(seen, part))) for part, of in prints.items()}
    compared["test"] = np.setdiff1d(compared["test"], list(in_train))
    chosen = {part: prints[part].rows(np.isin(prints[part].ids, ids)) for part, ids in compared.items()}
    found = near_pairs(chosen["test"], chosen["train"])
    return NearCopies(
        test_compared=len(compared["test"]),
        train_compared=len(compared["train"]),
        without_contrast=sum(of.plain for of in decoded.values()),
        most_bits=MAX_DISTANCE,
        of_bits=BITS,
        least_correlation=MIN_CORRELATION,
        test_found=len(found.first),
        pairs=found.pairs,
        examples=_named(seen, found.first),
    )


def _evenly(ids: np.ndarray, count: int) -> np.ndarray:
    """Returns at most `count` of some numbers, evenly spaced."""
    return ids[np.linspace(0, len(ids) - 1, min(count, len(ids)), dtype=np.int64)]


def _named(seen: Source, found: dict[int, int]) -> tuple[tuple[str, str], ...]:
    return tuple((_shown(seen.test, i), _shown(seen.train, found[i])) for i in sorted(found)[:EXAMPLES])


def _shown(split: Split, i: int) -> str:
    return _quoted(split.name(i))


def _quoted(name: str) -> str:
    return repr(name)[1:-1]  # one line of text, whatever bytes a file's name has; so messages quote it, too


def _one_line(reason: str) -> str:
    return " ".join(reason.encode(errors="backslashreplace").decode().split())
