"""Makes a dataset of the images with masks below a folder, on a disk or in a store."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from ssl_core.data.dataset import Files, Source
from ssl_core.data.decoding.decode import UNREADABLE
from ssl_core.data.header_scan import upright_size
from ssl_core.data.image_folder import DEFAULT_SIZE, Make, listing_digest, with_pixel_range
from ssl_core.data.labeling import NO_LABEL
from ssl_core.data.listing import saying_if_slow
from ssl_core.data.mask_layout import MaskLayout, find_mask_layout
from ssl_core.data.mask_reading import check_values, count_pixels
from ssl_core.data.masks import VOID, Masks
from ssl_core.data.remote import RemoteFiles
from ssl_core.data.tar_shards import lines_digest
from ssl_core.errors import UserError
from ssl_core.storage.cache import cached_arrays

SCAN = 1  # raise when what is kept of masks would change
PARTS = ("train", "test")
FilesOf = Files | RemoteFiles


def from_masks(
    data: str,
    name: str,
    sizes: Mapping[str, int],
    lists: Mapping[str, bytes],
    make: Make,
    size: int | None,
    left_out: Sequence[str],
) -> Source | None:
    """Makes the dataset of a folder whose images have masks; None if none has. Images then have no labels.

    All masks are read the first time; what they hold is kept in the cache.

    Args:
        data: The value of --data, for messages.
        name: What the dataset is called.
        sizes: Bytes of each image file, by its path from the folder, with slashes.
        lists: The content of lists of names, see `find_mask_layout`.
        make: Makes a split of paths and of labels, [n] int64.
        size: The side in pixels that images are delivered at; None: DEFAULT_SIZE.
        left_out: Notes about what else is there and is not read.

    Raises:
        UserError: If an image has no mask, or a mask cannot be read, has another size than its image or a value that is
            no class, or all pixels are of one class; or no training image can be decoded.
        StorageError: If a store fails.
    """
    try:
        layout = find_mask_layout(list(sizes), lists)
        if layout is None:
            return None
        masks = _masks(layout, make)
    except UserError as error:
        raise UserError(f"--data {data}: {error}") from error
    notes = layout.notes
    train, test = (_split([image for image, _ in pairs], make) for pairs in (layout.train, layout.test))
    train, test = with_pixel_range(data, train, test, notes)
    used = [path for pairs in (layout.train, layout.test) for pair in pairs for path in pair]
    use = f"{len(layout.train)} training images, masks of {masks.classes}, 0 is none: {masks.zero_is_void}\n"
    digest = listing_digest(used, sizes, use)
    return Source(name, digest, size or DEFAULT_SIZE, train, test, notes=(*notes, *left_out), masks=masks)


def _split(paths: list[str], make: Make) -> FilesOf:
    return make(paths, np.full(len(paths), NO_LABEL, np.int64))


def _masks(layout: MaskLayout, make: Make) -> Masks:
    images, masks = (
        {part: _split([pair[i] for pair in getattr(layout, part)], make) for part in PARTS} for i in range(2)
    )
    stamps = [stamp for of in (images, masks) for part in PARTS for stamp in _stamps(of[part])]
    key = lines_digest([f"masks {SCAN} {layout.classes} {layout.zero_is_void}", *stamps])
    with saying_if_slow(lambda: f"reading {len(layout.train) + len(layout.test):,} masks"):
        counts = cached_arrays(f"masks-{key[:16]}", lambda: _scan(layout, images, masks), PARTS)
    of_class = {part: np.array(counts[part]) for part in PARTS}
    classes = layout.classes or tuple(map(str, range(len(of_class["train"]) - 1)))
    return Masks(masks["train"], masks["test"], classes, layout.zero_is_void, of_class)


def _stamps(split: FilesOf) -> list[str]:
    """Returns what tells files from others that were there before."""
    if isinstance(split, RemoteFiles):
        return list(map(str, split.objects))
    found = [(path, os.stat(path)) for path in split.paths if path.exists()]
    return [f"{path} {state.st_size} {state.st_mtime_ns}" for path, state in found]


def _scan(layout: MaskLayout, images: dict[str, FilesOf], masks: dict[str, FilesOf]) -> dict[str, np.ndarray]:
    """Returns how many pixels are of each class, and last of none, by part; checks all masks."""
    totals = {part: np.zeros(VOID + 1, np.int64) for part in PARTS}
    for part in PARTS:
        for i, (name, counts, size) in enumerate(count_pixels(masks[part])):
            _check_size(images[part], i, name, size)
            if layout.zero_is_void:
                counts = np.append(np.roll(counts[:-1], -1), counts[-1])  # of 1 first, of 0 with those of VOID
                counts[-2:] = 0, counts[-2:].sum()
            if layout.classes:
                check_values(name, np.flatnonzero(counts), len(layout.classes), layout.zero_is_void)
            totals[part] += counts
    present = np.flatnonzero((totals["train"] + totals["test"])[:VOID])
    if len(present) < 2:
        values = [i for i in range(VOID + 1) if any(of[i] for of in totals.values())]
        raise UserError(
            f"masks have the values {values} only: expected at least two classes, numbered from 0 on, and {VOID} for "
            "pixels of none"
        )
    classes = len(layout.classes) or int(present[-1]) + 1
    return {part: np.append(of[:classes], of[VOID]) for part, of in totals.items()}


def _check_size(images: FilesOf, i: int, name: str, size: tuple[int, int]) -> None:
    """Raises UserError if a mask is not of its image's width and height; an image that cannot be read has none."""
    try:
        expected = upright_size(images, i)
    except UNREADABLE:
        return
    if expected != size:
        sides = [f"{width:,} x {height:,}" for width, height in (size, expected)]
        raise UserError(f"the mask {name} has {sides[0]} pixels, its image {images.name(i)} {sides[1]}")
