"""Finds out which image files are masks of which, and which images are trained on, in folders as VOC's and ADE20K's."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from posixpath import splitext

import numpy as np

from ssl_core.data.image_folder import select_test_images, test_split_note
from ssl_core.data.mask_names import SPLIT_LISTS, read_class_names
from ssl_core.data.split_names import roles_of_paths, split_roles
from ssl_core.errors import UserError, some

# folders of images in lower case, and those of their masks, which lie beside them
FOLDERS = {"jpegimages": ("segmentationclass",), "images": ("masks", "annotations")}
Place = tuple[tuple[str, ...], str, str]  # parts before a folder of images or masks, its name, a file's stem below it


@dataclass
class MaskLayout:
    """Which images are trained on and which ones test, each with its mask.

    Attributes:
        train: Pairs of paths, image and mask.
        test: The same.
        classes: Names of the classes; none if no file says them.
        zero_is_void: Whether masks have 0 for no class.
        notes: How the folder was understood, for the user.
    """

    train: list[tuple[str, str]]
    test: list[tuple[str, str]]
    classes: tuple[str, ...] = ()
    zero_is_void: bool = False
    notes: list[str] = field(default_factory=list)


def find_mask_layout(paths: Sequence[str], lists: Mapping[str, bytes]) -> MaskLayout | None:
    """Finds images with masks: JPEGImages/ beside SegmentationClass/, or images/ beside masks/ or annotations/.

    A mask has the path of its image but for that folder and the ending.

    Args:
        paths: All image files, with slashes.
        lists: The content of each file that `is_list`, by its path.

    Returns:
        The layout; None if no image has a mask.

    Raises:
        UserError: If several datasets are there, an image has no mask, or it is not clear what to train on.
    """
    placed = {path: place for path in sorted(paths) if (place := _place(path))}
    masks = {place: path for path, place in placed.items() if place[1] not in FOLDERS}
    images = {path: place for path, place in placed.items() if place[1] in FOLDERS}
    pairs = {path: _mask_of(place, masks) for path, place in images.items()}
    if not any(pairs.values()):
        return None
    tops = {_top(place) for path, place in images.items() if pairs[path]}
    if len(tops) > 1:
        found = some(sorted("/".join((*top, "")) or "the folder itself" for top in tops))
        raise UserError(f"several folders have masks of their own: {found}; give one of them")
    (top,) = tops
    images = {path: place for path, place in images.items() if _top(place) == top}
    layout = _by_lists(top, images, pairs, lists) or _by_folders(images, pairs)
    used = {path for pair in (*layout.train, *layout.test) for path in pair}
    if unused := len(set(paths) - used):
        layout.notes.append(f"{unused:,} other image files are not used")
    if found := read_class_names(top, lists):
        layout.classes, layout.zero_is_void, note = found
        layout.notes.append(note)
    return layout


def _place(path: str) -> Place | None:
    """Returns where an image or a mask lies, by the first of its folders that has such a name; None if none has."""
    parts, masks = path.split("/"), {name for names in FOLDERS.values() for name in names}
    for depth, folder in enumerate(parts[:-1]):
        if (name := folder.lower()) in FOLDERS or name in masks:
            return tuple(parts[:depth]), name, splitext("/".join(parts[depth + 1 :]))[0]
    return None


def _mask_of(place: Place, masks: Mapping[Place, str]) -> str | None:
    above, folder, stem = place
    return next((masks[above, name, stem] for name in FOLDERS[folder] if (above, name, stem) in masks), None)


def _top(place: Place) -> tuple[str, ...]:
    """Returns the folder of the dataset: what is above a folder of images, but for that of a split, train/images/."""
    above = place[0]
    return above[:-1] if above and split_roles(above[-1:]) else above


def _by_lists(
    top: tuple[str, ...], images: Mapping[str, Place], pairs: Mapping[str, str | None], lists: Mapping[str, bytes]
) -> MaskLayout | None:
    """Returns the layout that lists of names give, as VOC has them; None if there are none."""
    names = ["/".join((*top, name)) for name in SPLIT_LISTS]
    if not all(name in lists for name in names):
        return None
    by_stem = {place[2]: path for path, place in images.items()}
    splits = []
    for name in names:
        asked = lists[name].decode(errors="replace").split()
        if missing := [stem for stem in asked if stem not in by_stem]:
            raise UserError(f"{name} names {len(missing):,} images that are not there, such as {missing[0]}")
        splits.append(_with_masks([by_stem[stem] for stem in asked], pairs))
    train, test = splits
    notes = [f"trained on the {len(train):,} images of {SPLIT_LISTS[0]}, tested on the {len(test):,} of val.txt"]
    return _checked(MaskLayout(train, test, notes=notes))


def _by_folders(images: Mapping[str, Place], pairs: Mapping[str, str | None]) -> MaskLayout:
    """Returns the layout by the names of folders; without such one in a few images is held out."""
    roles, by_role = roles_of_paths(images), defaultdict(list)
    for path in images:
        by_role[roles.get(path, "other")].append(path)
    training = "train" if "train" in by_role else "other"
    tests = (role for role in ("test", "val") if role in by_role)
    # competitions ship test images without masks
    testing = next((role for role in tests if any(pairs[path] for path in by_role[role])), None)
    train = _with_masks(by_role[training], pairs)
    if testing:
        test = _with_masks(by_role[testing], pairs)
        notes = [f"trained on {len(train):,} {training} images, tested on {len(test):,} {testing} images, by folders"]
        return _checked(MaskLayout(train, test, notes=notes))
    chosen = select_test_images([image for image, _ in train], np.zeros(len(train), np.int64))
    test = [pair for pair, out in zip(train, chosen) if out]
    rest = [pair for pair, out in zip(train, chosen) if not out]
    return _checked(MaskLayout(rest, test, notes=[test_split_note(len(test), len(train), "paths")]))


def _with_masks(images: Iterable[str], pairs: Mapping[str, str | None]) -> list[tuple[str, str]]:
    """Returns images with their masks. Raises UserError if one has none."""
    images = list(images)
    found = [(image, mask) for image in images if (mask := pairs[image])]
    if len(found) < len(images):
        without = next(image for image in images if not pairs[image])
        raise UserError(f"{len(images) - len(found):,} of {len(images):,} images have no mask, such as {without}")
    return found


def _checked(layout: MaskLayout) -> MaskLayout:
    if not layout.train or not layout.test:
        raise UserError(f"{len(layout.train)} training and {len(layout.test)} test images with masks: too few")
    return layout
