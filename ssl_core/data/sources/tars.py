"""A folder of tar files in webdataset's layout: of a key's files, one is the image, `.cls` or `.json` its label."""

import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ssl_core.data import cache
from ssl_core.data.decode import UNREADABLE
from ssl_core.data.folders import SIZE, check_one_reads, held_out, is_image
from ssl_core.data.source import Packed, Shard, Source
from ssl_core.data.sources import packed
from ssl_core.data.sources.folder import images_below
from ssl_core.errors import BadInput

NAME_BYTES = 2**12  # a longer name is no path; all take as much room as the longest
LABEL_BYTES = 2**20  # a larger .cls or .json is not read
NO_LABEL = -1
KEYS = ("places", "labels", "names", "notes")


@dataclass(frozen=True)
class Tars(Packed):
    """Images in tar files that others made, which have names of their own."""

    names: np.ndarray = field(default_factory=lambda: np.empty(0, "S1"))  # [m] bytes: the key of image places[i, 3]

    def name(self, i: int) -> str:
        """What messages call image `i`: its shard and its key there."""
        shard, _, _, number = self.places[i].tolist()
        return f"{self.shards[shard].name}: {_text(self.names[number])}"


def opens(data: str) -> bool:
    """A folder whose images all lie in tar files."""
    root = Path(data).expanduser()
    return root.is_dir() and bool(_tars(root)) and not packed.opens(data) and not images_below(root)


def load(data: str, size: int | None) -> Source:
    """Raises BadInput if no image is in the tar files or none of them can be decoded."""
    root = Path(data).expanduser().resolve()
    paths = _tars(root)
    states = [path.stat() for path in paths]
    shards = tuple(Shard(path, f"{state.st_size} {state.st_mtime_ns}") for path, state in zip(paths, states))
    key = _digest(f"{shard.path}\0{shard.stamp}" for shard in shards)
    found = cache.arrays(f"tars-{key[:16]}", lambda: _scanned(shards), KEYS)
    places, labels, names = (np.array(found[key]) for key in KEYS[:3])
    notes = tuple(json.loads(found["notes"].tobytes()))
    if not len(places):
        raise BadInput(f"--data {data}: no images in its tar files; {'; '.join(notes)}".rstrip("; "))
    values = np.unique(labels)
    labelled = NO_LABEL not in values and len(values) > 1
    if not labelled and len(values) > 1:
        notes += (f"{root.name}: labels are not used, {(labels == NO_LABEL).sum():,} images have none",)
    out = np.zeros(len(places), bool)
    if labelled:
        labels = np.searchsorted(values, labels)
        out = held_out([f"{shards[place[0]].name}/{_text(name)}" for place, name in zip(places, names)], labels)
        notes += (f"{root.name}: {out.sum()} of {len(places)} images are held out as test data, chosen by their keys",)
    else:
        labels = np.full(len(places), NO_LABEL)
    train, test = (
        Tars(part, shards, places[rows], labels[rows], names=names) for part, rows in (("train", ~out), ("test", out))
    )
    check_one_reads(data, train)
    digest = _digest(f"tar {path.name}\0{state.st_size}" for path, state in zip(paths, states))
    classes = tuple(map(str, values.tolist())) if labelled else ()
    return Source(root.name, digest, size or SIZE, train, test, classes, notes=notes)


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def _tars(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.suffix == ".tar" and path.name[0] != "." and path.is_file())


def _scanned(shards: tuple[Shard, ...]) -> dict[str, np.ndarray]:
    """places [n, 4] and labels [n] int64 as in Packed, names [n] bytes, and notes, JSON as uint8."""
    rows, labels, names, notes = [], [], [], []
    for number, shard in enumerate(shards):
        images: dict[str, tuple[int, int]] = {}
        classes: dict[str, int] = {}
        try:
            for member, data in _members(shard.path):
                folder, slash, base = member.name.rpartition("/")
                key, _, kind = base.partition(".")
                key = folder + slash + key
                if len(key.encode(errors="surrogateescape")) > NAME_BYTES:
                    continue
                if is_image(member.name):
                    images.setdefault(key, (member.offset_data, member.size))
                elif (label := _label(kind.lower(), data)) is not None:
                    classes[key] = label
        except (tarfile.TarError, *UNREADABLE) as error:  # tarfile trusts the sizes that headers tell
            said = str(error) or type(error).__name__
            notes.append(f"{shard.name} is damaged, {len(images):,} images of it are used: {said}")
        rows += [(number, offset, length, len(rows) + i) for i, (offset, length) in enumerate(images.values())]
        labels += [classes.get(key, NO_LABEL) for key in images]
        names += [key.encode(errors="surrogateescape") for key in images]
    return {
        "places": np.array(rows, np.int64).reshape(-1, 4), "labels": np.array(labels, np.int64),
        "names": np.array(names, "S"), "notes": np.frombuffer(json.dumps(notes).encode(), np.uint8),
    }  # fmt: skip


def _members(path: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Each plain file that is whole, and its bytes if it may be a label. Raises tarfile.TarError where the file is
    damaged, after what lies before that."""
    end = path.stat().st_size
    with tarfile.open(path, "r:") as tar:
        while member := tar.next():
            tar.members.clear()  # of millions, none is asked for again
            if not member.isreg() or member.sparse is not None:
                continue
            if not 0 <= member.size <= end - member.offset_data:
                raise tarfile.ReadError(f"{member.name} is cut off")
            label = member.name.lower().endswith((".cls", ".json")) and member.size <= LABEL_BYTES
            yield member, tar.extractfile(member).read() if label else b""
        tar.fileobj.seek(tar.offset)
        after = tar.fileobj.read(tarfile.BLOCKSIZE)  # tarfile takes whatever it cannot read for the end
        if after != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"neither a header nor the end mark at byte {tar.offset:,}")


def _label(kind: str, data: bytes) -> int | None:
    """The number in a key's .cls or .json file; None if there is none, or none that a class could have."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if kind == "json":
        value = value.get("label", value.get("cls")) if isinstance(value, dict) else None
    return value if kind in ("cls", "json") and type(value) is int and 0 <= value < 2**31 else None


def _text(name: bytes) -> str:
    return name.decode(errors="surrogateescape")
