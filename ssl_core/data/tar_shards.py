"""Where images and labels lie in tar files in webdataset's layout: of a key's files, one is the image, `.cls` or
`.json` its label. Headers are read once and kept in the cache."""

import hashlib
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_core.data import cache
from ssl_core.data.decode import UNREADABLE
from ssl_core.data.image_names import is_image
from ssl_core.data.source import Shard

NAME_BYTES = 2**12  # a longer name is no path; all take as much room as the longest
LABEL_BYTES = 2**20  # a larger .cls or .json is not read
LABEL_LENGTH = 200  # characters; a longer text is no name of a class
NO_LABEL = -1
LABEL_KEYS = ("label", "cls", "class", "class_name", "label_name", "category", "target")  # in a .json, the first counts
SCAN = 2  # raise when the same shards would be understood in another way
KEYS = ("places", "labels", "names", "texts")


class Scan(NamedTuple):
    """What lies in some tar files."""

    places: np.ndarray  # [n, 4] int64, as in Packed
    labels: np.ndarray  # [n] int64, rows of `values`, NO_LABEL for none
    names: np.ndarray  # [n] bytes: the image's key
    values: tuple[str, ...]  # the labels as texts
    notes: tuple[str, ...]  # damage, and labels that cannot be used


def scan(shards: tuple[Shard, ...]) -> Scan:
    """What lies in them, from the cache if they were scanned before."""
    key = digest([f"scan {SCAN}", *(f"{shard.path}\0{shard.stamp}" for shard in shards)])
    found = cache.arrays(f"tars-{key[:16]}", lambda: scanned(shards), KEYS)
    texts = json.loads(found["texts"].tobytes())
    places, labels, names = (np.array(found[key]) for key in KEYS[:3])
    return Scan(places, labels, names, tuple(texts["values"]), tuple(texts["notes"]))


def digest(lines: Iterable[str]) -> str:
    """sha256 of some lines."""
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def scanned(shards: tuple[Shard, ...]) -> dict[str, np.ndarray]:
    """The arrays of a Scan; `texts` is JSON as uint8."""
    rows, labels, names, notes = [], [], [], []
    unusable: Counter[str] = Counter()
    for number, shard in enumerate(shards):
        images: dict[str, tuple[int, int]] = {}
        classes: dict[str, str] = {}
        try:
            for member, data in _members(shard.path):
                folder, slash, base = member.name.rpartition("/")
                key, _, kind = base.partition(".")
                key = folder + slash + key
                if len(key.encode(errors="surrogateescape")) > NAME_BYTES:
                    continue
                if is_image(member.name):
                    images.setdefault(key, (member.offset_data, member.size))
                elif kind.lower() in ("cls", "json"):
                    try:
                        if (label := label_of(kind.lower(), data)) is not None:
                            classes[key] = label
                    except ValueError as error:
                        unusable[str(error)] += 1
        except (tarfile.TarError, *UNREADABLE) as error:  # tarfile trusts the sizes that headers state
            reason = str(error) or type(error).__name__
            notes.append(f"{shard.name} is damaged, {len(images):,} images of it are used: {reason}")
        rows += [(number, offset, length, len(rows) + i) for i, (offset, length) in enumerate(images.values())]
        labels += [classes.get(key) for key in images]
        names += [key.encode(errors="surrogateescape") for key in images]
    if unusable:
        notes.append(f"{unusable.total():,} labels cannot be used, such as {unusable.most_common(1)[0][0]}")
    values = sorted({label for label in labels if label is not None})
    number_of = {value: i for i, value in enumerate(values)}
    texts = json.dumps({"values": values, "notes": notes}).encode()
    return {
        "places": np.array(rows, np.int64).reshape(-1, 4),
        "labels": np.array([NO_LABEL if label is None else number_of[label] for label in labels], np.int64),
        "names": np.array(names, "S"),
        "texts": np.frombuffer(texts, np.uint8),
    }


def label_of(kind: str, data: bytes) -> str | None:
    """The label in a key's .cls file, a number or a name, or in its .json file, under one of LABEL_KEYS; None if there
    is none, or a number below zero, which by custom says so.

    Raises ValueError, with the label in it, for one that is no class: a list, say.
    """
    text = data.decode(errors="surrogateescape").strip()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        if kind == "json":
            return None
        value = text
    if kind == "json":
        value = next((value[key] for key in LABEL_KEYS if key in value), None) if isinstance(value, dict) else None
    elif isinstance(value, bool) or value is None:
        value = text  # a name like any other, where the file is no JSON
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        return str(value) if value >= 0 else None
    if isinstance(value, str) and len(value := value.strip()) <= LABEL_LENGTH and value.isprintable():
        return None if value.startswith("-") and value[1:].isdigit() else value or None
    raise ValueError(f"{str(value)[:40]!r}")


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
