"""Decides by their names which files are images and which folders are searched, and reports all others."""

import importlib
from collections import Counter
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from posixpath import splitext

from PIL import Image

from ssl_core.errors import some

# Of operating systems, network storages and archives, beside those whose names begin with a dot
SYSTEM_FOLDERS = {
    "__macosx",
    "__pycache__",
    "@eadir",
    "@recycle",
    "@recently-snapshot",
    "@tmp",
    "#recycle",
    "#snapshot",
    "~snapshot",
    "$recycle.bin",
    "recycler",
    "lost+found",
    "system volume information",
    "temporary items",
    "network trash folder",
}
# What Pillow knows by name although it holds no picture, needs another program for it, or is an icon or a font
NOT_PICTURES = {"BUFR", "CUR", "EPS", "FTEX", "GRIB", "HDF5", "ICNS", "ICO", "IPTC", "MPEG", "PDF", "PALM", "WMF"}
OPENED_AS_JPEG = {"MPO"}  # has an extension of its own, and no opener
READABLE_WITH = {
    ".heic": "pip install pillow-heif",
    ".heif": "pip install pillow-heif",
    ".hif": "pip install pillow-heif",
    ".jxl": "pip install pillow-jxl-plugin",
}
PLUGINS = ("pillow_heif", "pillow_jxl")  # of Pillow, used where they are installed
# Their first bytes identify them; other formats are recognized by too little to go by where a name says nothing
FORMATS_BY_CONTENT = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "AVIF", "QOI", "PSD")
MAGIC_BYTES = 16  # bytes that Pillow recognizes a format by


def is_hidden(name: str) -> bool:
    """Returns whether a file or folder of this name is hidden, or belongs to an operating system."""
    return (name[:1] == "." and name not in (".", "..")) or name.lower() in SYSTEM_FOLDERS


def is_image(name: str) -> bool:
    """Returns whether Pillow reads pictures from files of this name or path, none of which is hidden."""
    return splitext(name)[1].lower() in _suffixes() and not any(map(is_hidden, name.split("/")))


@lru_cache(maxsize=1)
def _suffixes() -> set[str]:
    for plugin in PLUGINS:
        with suppress(ImportError):
            getattr(importlib.import_module(plugin), "register_heif_opener", lambda: None)()  # the other does so itself
    Image.init()
    known = (set(Image.OPEN) | OPENED_AS_JPEG) - NOT_PICTURES
    return {suffix for suffix, format in Image.EXTENSION.items() if format in known}


def has_no_extension(name: str) -> bool:
    """Returns whether a name has no extension, or a number for one, so that only the content says what it is."""
    suffix = splitext(name)[1]
    return suffix in ("", ".") or suffix[1:].isdigit()


def holds_image(path: Path) -> bool:
    """Returns whether a regular file begins as an image does; False if it cannot be read."""
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            prefix = file.read(MAGIC_BYTES)
    except OSError:
        return False
    return is_image_data(prefix)


def is_image_data(prefix: bytes) -> bool:
    """Returns whether the first MAGIC_BYTES bytes of a file are those of an image."""
    _suffixes()
    openers = (Image.OPEN[name][1] for name in FORMATS_BY_CONTENT if name in Image.OPEN)
    return any(accept(prefix) is True for accept in openers if accept)


class SkippedFiles:
    """Counts the files of a folder that are no images while it is listed, and describes them."""

    def __init__(self) -> None:
        self.suffixes: Counter[str] = Counter()
        self.hidden: set[str] = set()

    def wants(self, name: str) -> bool:
        """Returns whether a file is an image, and counts it if not; `name` is its path from the dataset's folder."""
        if is_image(name):
            return True
        self.add(name)
        return False

    def add(self, name: str) -> None:
        """Counts a file that is not read."""
        hidden = next((part for part in name.split("/") if is_hidden(part)), None)
        if hidden is None:
            self.suffixes[splitext(name)[1].lower()] += 1
        elif name.rpartition("/")[2] != hidden:
            self.hidden.add(hidden)

    def take_back(self, name: str) -> None:
        """Takes back a file that was counted, since it is read after all."""
        self.suffixes = +(self.suffixes - Counter([splitext(name)[1].lower()]))

    def add_folder(self, name: str) -> None:
        """Notes a hidden folder, which is not searched."""
        self.hidden.add(name)

    def clauses(self) -> list[str]:
        """Returns what was left out and why, one clause for each reason."""
        found = []
        for suffix, way in READABLE_WITH.items():
            if count := self.suffixes.get(suffix, 0):
                found.append(f"{count:,} {suffix} {_files(count)} not read (to read them: {way})")
        others = Counter({suffix: n for suffix, n in self.suffixes.items() if suffix not in READABLE_WITH})
        if others:
            count = others.total()
            kinds = some([suffix or "no extension" for suffix, _ in others.most_common()])
            found.append(f"{count:,} other {_files(count)} ({kinds}) left out")
        if self.hidden:
            found.append(f"not looked into: {some(sorted(self.hidden))}")
        return found


def _files(count: int) -> str:
    return "file" if count == 1 else "files"
