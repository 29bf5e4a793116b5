"""Lists of names that lie beside masks: of the images of a split, and of classes."""

from collections.abc import Mapping, Sequence

SPLIT_LISTS = ("ImageSets/Segmentation/train.txt", "ImageSets/Segmentation/val.txt")  # VOC's
NAMES, ADE_NAMES = ("classes.txt", "class_names.txt"), "objectInfo150.txt"


def is_list(path: str) -> bool:
    """Returns whether a file's path, with slashes, is that of such a list."""
    return f"/{path}".endswith(tuple(f"/{name}" for name in (*SPLIT_LISTS, *NAMES, ADE_NAMES)))


def read_class_names(top: Sequence[str], lists: Mapping[str, bytes]) -> tuple[tuple[str, ...], bool, str] | None:
    """Reads the names of classes, from a file of a name a line, or from ADE20K's table.

    Args:
        top: Parts of the path of the dataset's folder.
        lists: The content of each list, by its path.

    Returns:
        The names by number, each its own; whether masks have 0 for no class, as ADE20K's have; and a note for the user.
        None if no list says names.
    """
    for name in (*NAMES, ADE_NAMES):
        place = "/".join((*top, name))
        lines = [line.strip() for line in lists.get(place, b"").decode(errors="replace").splitlines()]
        if not (lines := list(filter(None, lines))):
            continue
        ade = name == ADE_NAMES
        if ade:  # Idx Ratio Train Val Stuff Name, below a heading
            lines = [line.split("\t")[-1].partition(",")[0].strip() for line in lines[1:]]
        names = tuple(f"{line} ({i})" if lines.count(line) > 1 else line for i, line in enumerate(lines))
        return names, ade, f"names of classes from {place}" + (", and 0 in a mask is none" if ade else "")
    return None
