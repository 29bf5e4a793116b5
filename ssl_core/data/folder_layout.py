"""What the sub-folders of a folder of images are: splits, classes, a wrapper around one of these, or neither."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ssl_core.data.split_names import Role, split_roles
from ssl_core.errors import UserError, some

Parts = tuple[str, ...]  # of an image's path from the dataset's folder on


@dataclass
class Layout:
    """Which images are trained on, which ones test, and their classes.

    Attributes:
        train: The training images, without those that lie in folders of unlabeled images.
        root: The folder whose sub-folders are the classes.
        test: The test images, if the folder says which they are.
        classes: The classes by number; none if there are no labels.
        labels: The number of the class of each training and test image, if there are classes.
        unlabeled: The images in folders of unlabeled images beside the others, which are trained on as well.
        notes: How the folder was understood, for the user.
    """

    train: Sequence[Parts]
    root: Parts = ()
    test: Sequence[Parts] = ()
    classes: tuple[str, ...] = ()
    labels: dict[Parts, int] = field(default_factory=dict)
    unlabeled: Sequence[Parts] = ()
    notes: list[str] = field(default_factory=list)


class Folder:
    """A folder: the images of each sub-folder, and the loose ones that are directly in it.

    Args:
        path: The folder, from the dataset's folder on.
        images: All images below it, from the dataset's folder on, in their order.
    """

    def __init__(self, path: Parts, images: Sequence[Parts]):
        self.path, self.images = path, images
        self.children: dict[str, list[Parts]] = defaultdict(list)
        self.loose: list[Parts] = []
        depth = len(path)
        for image in images:
            if len(image) > depth + 1:
                self.children[image[depth]].append(image)
            else:
                self.loose.append(image)

    def child(self, name: str) -> "Folder":
        """Returns the sub-folder of this name."""
        return Folder((*self.path, name), self.children[name])

    def display_path(self, name: str) -> str:
        """Returns the path of a sub-folder for messages, from the dataset's folder on."""
        return "/".join((*self.path, name)) + "/"


def find_layout(images: Sequence[Parts]) -> Layout:
    """Finds out how images are arranged in folders.

    Splits are recognized by their usual names and are never classes. Class folders are looked for in the training
    split, or in the folder itself, or, where nearly all is in one sub-folder, in that, as in unzipped archives. Folders
    of unlabeled images beside either are trained on as well. A few stray images beside them are left out and named;
    where most images are beside them, there are no labels.

    Args:
        images: The paths of all images, in the order that the dataset keeps.

    Returns:
        The layout, with notes for the user.

    Raises:
        UserError: If splits and classes cannot be distinguished, or there is nothing to train on; it says what was
            found.
    """
    notes: list[str] = []
    layout = _read(Folder((), images), notes) or Layout(images)
    layout.notes += notes
    return layout


def _read(folder: Folder, notes: list[str], in_split: bool = False) -> Layout | None:
    """Returns the layout of a folder with splits or classes; None for any other, whose images have no labels.

    Args:
        folder: The folder.
        notes: Gets why labels that it might have are not used.
        in_split: Whether it is a training split: there, the name of a split among others is a class, trains perhaps.

    Raises:
        UserError: As `find_layout` does.
    """
    roles = split_roles(folder.children)
    if in_split and len(roles) < len(folder.children):
        roles = {name: role for name, role in roles.items() if role == "unlabeled"}
    splits: dict[str, list[str]] = defaultdict(list)
    for name, role in roles.items():
        splits[role].append(name)
    others = [name for name in folder.children if name not in roles]
    if in_split:  # a split in a split, if it has the classes that lie beside it
        for name in split_roles(folder.children):
            if name in others and folder.child(name).children.keys() & set(others):
                raise _ambiguous(folder, name)
    tests = splits["test"] + splits["val"]
    inside = sum(len(folder.children[name]) for name in others)
    if len(splits["train"]) > 1:
        raise UserError(f"several training splits: {_contents(folder)}; give one of them, or a folder with one")
    if splits["train"]:
        # a flat folder `train` among others may as well be a class: trains
        if others and not tests and not splits["unlabeled"] and not folder.child(splits["train"][0]).children:
            raise _ambiguous(folder, splits["train"][0])
        return _with_training_split(folder, splits["train"][0], tests, splits["unlabeled"], notes)
    if tests and not others:
        if splits["unlabeled"]:
            return _with_training_split(folder, splits["unlabeled"][0], tests, splits["unlabeled"][1:], notes)
        raise UserError(f"no images to train on: {_contents(folder)}; give the one to train on itself")
    if tests and len(others) == 1:
        raise _ambiguous(folder, tests[0])
    if len(others) > 1 and len(folder.loose) >= inside:
        notes.append(f"labels are not used: {len(folder.loose):,} images lie beside sub-folders with {inside:,}")
        return None
    unused = tests
    if len(divided := _split_subfolders(folder, others)) == 1:
        others, unused = divided, [name for name in folder.children if name not in (*divided, *splits["unlabeled"])]
    elif divided:
        raise UserError(f"several folders have splits of their own: {_contents(folder)}; give one of them")
    if len(others) > 1 and (layout := _with_classes(folder, others)):
        used = _use_test_split(folder, tests, layout)
        layout.notes += [f"tested on {folder.display_path(used)}"] if used else []
        layout.notes += _unused_note(folder, [name for name in unused if name != used])
        return _with_unlabeled(folder, splits["unlabeled"], layout)
    if len(others) == 1 and len(folder.loose) < inside and (layout := _read(folder.child(others[0]), notes)):
        layout.notes.insert(0, f"read from {folder.display_path(others[0])}")
        layout.notes += _left_out(folder.loose, folder.display_path(others[0])) + _unused_note(folder, unused)
        return _with_unlabeled(folder, splits["unlabeled"], layout)
    return None


def _with_training_split(
    folder: Folder, train: str, tests: list[str], unlabeled: list[str], notes: list[str]
) -> Layout:
    inner = folder.child(train)
    layout = _read(inner, notes, in_split=True) or Layout(inner.images, inner.path)
    used = _use_test_split(folder, tests, layout) if layout.classes and not layout.test else None
    layout.notes.insert(
        0, f"trained on {folder.display_path(train)}" + (f", tested on {folder.display_path(used)}" if used else "")
    )
    layout.notes += _unused_note(folder, [name for name in folder.children if name not in (train, used, *unlabeled)])
    layout.notes += _left_out(folder.loose, folder.display_path(train))
    return _with_unlabeled(folder, unlabeled, layout)


def _with_unlabeled(folder: Folder, names: list[str], layout: Layout) -> Layout:
    """Returns `layout`, to whose unlabeled images those of the sub-folders `names` are added."""
    layout.unlabeled = [*layout.unlabeled, *(image for name in names for image in folder.children[name])]
    layout.notes += [f"trained on without labels: {some(_count_note(folder, names))}"] if names else []
    return layout


def _with_classes(folder: Folder, names: list[str]) -> Layout | None:
    """Returns the layout of a folder whose sub-folders `names` are classes; None if all are spellings of one class."""
    classes = tuple(sorted({_normalize_unicode(name) for name in names}))
    if len(classes) < 2:
        return None
    number = {name: classes.index(_normalize_unicode(name)) for name in names}
    labels = {image: number[name] for name in names for image in folder.children[name]}
    layout = Layout([image for image in folder.images if image in labels], folder.path, (), classes, labels)
    layout.notes += _left_out(folder.loose, "the class folders")
    if len(names) > len(classes):
        layout.notes.append("class folders whose names differ only in their Unicode form are one class")
    layout.notes += similar_classes_note(classes)
    below = {frozenset(folder.child(name).children) for name in names}
    if len(below) == 1 and len(inner := below.pop()) > 1:
        layout.notes.append(f"every class folder has {some(sorted(inner))}: if these are the classes, give one of them")
    return layout


def _split_subfolders(folder: Folder, names: list[str]) -> list[str]:
    """Returns those of the sub-folders `names` that are divided into splits; none of them unless there are both
    training and test splits, since a class may have a folder `test` as well."""
    divided: dict[str, set[Role]] = {}
    for name in names:
        inner = folder.child(name).children
        roles = split_roles(inner)
        found: set[Role] = {role for role in roles.values() if role != "unlabeled"}
        if roles and (len(roles) == len(inner) or ("train" in found and len(found) > 1)):
            divided[name] = found
    splits = set().union(*divided.values())
    enough = len(divided) > 1 or any(len(found) > 1 for found in divided.values())
    return list(divided) if enough and "train" in splits and len(splits) > 1 else []


def _use_test_split(folder: Folder, names: list[str], layout: Layout) -> str | None:
    """Makes the first of the splits `names` that has class folders the test data of `layout`; returns its name.

    Others are passed over: competitions publish test images without labels. None if there is none.

    Raises:
        UserError: If it has classes that the training data lack.
    """
    for name in names:
        inner = folder.child(name)
        while len(inner.children) == 1 and not inner.loose:
            (child,) = inner.children
            if class_of(child, layout.classes) is not None:
                break
            inner = inner.child(child)
        if not inner.children or len(inner.loose) >= len(inner.images) / 2:
            continue
        found = {child: class_of(child, layout.classes) for child in inner.children}
        numbers = {child: number for child, number in found.items() if number is not None}
        if unknown := sorted(set(found) - set(numbers)):
            where = "/".join((*layout.root, "")) or "training"
            raise UserError(
                f"{folder.display_path(name)} has {len(unknown)} classes that {where} lacks, such as "
                f"{', '.join(unknown[:5])}"
            )
        loose = set(inner.loose)
        layout.test = [image for image in inner.images if image not in loose]
        layout.labels |= {image: numbers[image[len(inner.path)]] for image in layout.test}
        layout.notes += [
            f"{inner.display_path(child)} is taken for the class {layout.classes[number]}"
            for child, number in numbers.items()
            if _normalize_unicode(child) != layout.classes[number]
        ]
        layout.notes += _left_out(inner.loose, "the class folders")
        return name
    return None


def similar_classes_note(classes: Iterable[str]) -> list[str]:
    """Returns notes for the user about classes whose names differ only in case, which may be one class."""
    by_case: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        by_case[name.casefold()].append(name)
    return [f"the classes {' and '.join(same)} differ only in case" for same in by_case.values() if same[1:]]


def class_of(name: str, classes: tuple[str, ...]) -> int | None:
    """Finds the class that a folder's name stands for, in any Unicode form and, if none fits so, in any case.

    Args:
        name: The folder's name.
        classes: The classes in Unicode form NFC.

    Returns:
        The number of the class; None if none, or more than one, fits.
    """
    name = _normalize_unicode(name)
    similar = [i for i, other in enumerate(classes) if other.casefold() == name.casefold()]
    return classes.index(name) if name in classes else similar[0] if len(similar) == 1 else None


def _normalize_unicode(name: str) -> str:
    """Returns the name in form NFC: macOS decomposes the names of files, and others do not."""
    return unicodedata.normalize("NFC", name)


def _ambiguous(folder: Folder, split: str) -> UserError:
    return UserError(
        f"{folder.display_path(split)} has the name of a split, others beside it have not: {_contents(folder)}; give "
        "the folder to train on itself, or rename it if it is a class"
    )


def _contents(folder: Folder) -> str:
    return f"found {some(_count_note(folder, folder.children), 6)}"


def _unused_note(folder: Folder, names: list[str]) -> list[str]:
    return [f"not used: {some(_count_note(folder, names))}"] if names else []


def _count_note(folder: Folder, names: Iterable[str]) -> list[str]:
    return [f"{folder.display_path(name)} ({len(folder.children[name]):,} images)" for name in sorted(names)]


def _left_out(images: Sequence[Parts], context: str) -> list[str]:
    return [f"left out: {some(['/'.join(image) for image in images])} beside {context}"] if images else []
