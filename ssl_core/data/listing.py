"""Lists what is below a folder of this machine: images, tar shards, and what is neither."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ssl_core.data.image_names import SkippedFiles, has_no_extension, holds_image, is_hidden, is_image
from ssl_core.data.mask_names import is_list

QUIET_S = 2.0  # seconds that something may take before a line says what is going on
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # which Hugging Face reads beside images
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")


@dataclass
class Listing:
    """What is below a folder; names are paths from `root` on, with slashes.

    Attributes:
        root: The folder.
        images: Bytes of each image; -1 for a link that leads nowhere.
        tars: Tar files.
        parquets: Other Parquet files, which may have images.
        tables: Tables that may have the images' labels.
        compressed: Compressed tar files, which cannot be read from any place in them.
        lists: Lists of names that may lie beside masks.
        left_out: Files that are none of these.
        unlisted: Errors of the folders that cannot be listed.
        folders: All folders that were searched.
        visited_again: Links to folders that are reached in another way, too.
    """

    root: Path
    images: dict[str, int] = field(default_factory=dict)
    tars: list[str] = field(default_factory=list)
    parquets: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    compressed: list[str] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)
    left_out: SkippedFiles = field(default_factory=SkippedFiles)
    unlisted: list[OSError] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    visited_again: list[str] = field(default_factory=list)


def list_folder(root: Path) -> Listing:
    """Lists all files below a folder, at any depth; a loop of links is followed once, and hidden folders are not.

    Links that lead nowhere are among the images, so that they are named when they cannot be read. A file whose name has
    no extension is an image if its content is one. What takes long says so on stderr.
    """
    found = Listing(root)
    seen: set[tuple[int, int]] = set()
    with saying_if_slow(lambda: f"listing {root}: {len(found.images):,} images so far"):
        for folder, children, names in os.walk(root, onerror=found.unlisted.append, followlinks=True):
            try:
                state = os.stat(folder)
            except OSError as error:  # gone since it was listed
                found.unlisted.append(error)
                continue
            place = os.path.relpath(folder, root).replace(os.sep, "/")
            if (state.st_dev, state.st_ino) in seen:
                children.clear()
                found.visited_again.append(place)
                continue
            seen.add((state.st_dev, state.st_ino))
            found.folders.append(place)
            # of two ways to a folder the first is taken, whatever the order on the disk; of a link and the folder
            # beside it that it leads to, the folder
            children[:] = sorted(
                (child for child in children if not _is_skipped(found, child)),
                key=lambda child: (os.path.islink(os.path.join(folder, child)), child),
            )
            for name in names:
                _add(found, folder, name, "" if place == "." else f"{place}/")
    return found


def _is_skipped(found: Listing, child: str) -> bool:
    if is_hidden(child):
        found.left_out.add_folder(child)
        return True
    return False


def _add(found: Listing, folder: str, name: str, below: str) -> None:
    if is_hidden(name):
        return
    path = os.path.join(folder, name)
    lower = name.lower()
    if is_image(name) or (has_no_extension(name) and holds_image(Path(path))):
        found.images[below + name] = _size(path)
    elif lower.endswith(".tar") and os.path.isfile(path):
        found.tars.append(below + name)
    elif name in METADATA and os.path.isfile(path):
        found.tables.append(below + name)
    elif lower.endswith(".parquet") and os.path.isfile(path):
        found.parquets.append(below + name)
    elif lower.endswith(COMPRESSED):
        found.compressed.append(below + name)
    elif is_list(below + name) and os.path.isfile(path):
        found.lists.append(below + name)
    else:
        found.left_out.add(name)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def compressed_advice(name: str) -> str:
    """Returns what a message advises to do with a compressed tar file."""
    plain = next((name[: -len(end)] for end in COMPRESSED if name.lower().endswith(end)), name)
    return (
        f"{name} is compressed, and shards are read at any place in them: decompress it first, into {plain}.tar "
        "(gunzip, bunzip2, unxz or unzstd)"
    )


@contextmanager
def saying_if_slow(message: Callable[[], str]) -> Iterator[None]:
    """Prints `message()` on stderr if the block takes longer than QUIET_S, and again each time that it has doubled."""
    done = threading.Event()

    def watch() -> None:
        wait = QUIET_S
        while not done.wait(wait):
            print(message(), file=sys.stderr, flush=True)
            wait = time.monotonic() - start

    start = time.monotonic()
    thread = threading.Thread(target=watch, daemon=True, name="says what is going on")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
