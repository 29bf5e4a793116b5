"""Any folder of images: class sub-folders or flat and unlabelled, nested, every format that Pillow reads."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from ssl_core.data.folders import is_image, laid_out
from ssl_core.data.source import Files, Source

FALLBACK = True  # a folder may be something more particular, such as a packed dataset


def opens(data: str) -> bool:
    return Path(data).expanduser().is_dir()


def load(data: str, size: int | None) -> Source:
    root = Path(data).expanduser().resolve()
    unlisted: list[OSError] = []
    sizes = {PurePosixPath(path.relative_to(root)): _size(path) for path in images_below(root, unlisted.append)}
    folders = [child.name for child in root.iterdir() if child.is_dir()]

    def make(names: list[PurePosixPath], labels: np.ndarray) -> Files:
        return Files([root / name for name in names], labels)

    source = laid_out(data, root.name, sizes, folders, make, size)
    notes = tuple(f"{root.name}: a folder is left out, {error}" for error in unlisted)
    return replace(source, notes=notes + source.notes)


def images_below(root: Path, unlisted: Callable[[OSError], object] | None = None) -> list[Path]:
    """Files with an image's extension, at any depth; a loop of links is walked once. Links that lead nowhere are
    among them, to be missed by name. `unlisted` hears of folders that cannot be listed."""
    seen, found = set(), []
    for folder, children, names in os.walk(root, onerror=unlisted, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            children.clear()
            continue
        seen.add(real)
        children.sort()  # of two ways to a folder the first is taken, whatever the order on the disk
        found += [Path(folder) / name for name in names if is_image(name)]
    return found


def _size(path: Path) -> int:
    """In bytes; -1 for a link that leads nowhere or a file that is gone since it was listed."""
    try:
        return path.stat().st_size
    except OSError:
        return -1
