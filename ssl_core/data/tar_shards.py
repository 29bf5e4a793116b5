"""Finds images and labels in tar files in webdataset's layout; what is found is kept in the cache.

Files of one key belong together: one is the image, and `.cls` or `.json` is its label.
"""

import hashlib
import json
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_core.data.dataset import Shard
from ssl_core.data.decoding.decode import UNREADABLE
from ssl_core.data.image_names import is_hidden, is_image
from ssl_core.data.labeling import NO_LABEL, label_in_text, label_text
from ssl_core.errors import UserError, reason_of, some
from ssl_core.storage import cache

NAME_BYTES = 2**12  # a longer name is no path; all take as much room as the longest
LABEL_BYTES = 2**20  # a larger .cls or .json is not read
# in a .json, in any case; the first counts
LABEL_KEYS = ("label", "cls", "class", "class_name", "label_name", "category", "target", "label_id", "class_id")
SCAN = 3  # raise when the same shards would be understood in another way
COMPRESSION = (b"\x1f\x8b", b"BZh", b"\xfd7zX", b"\x28\xb5\x2f\xfd")  # how gzip, bzip2, xz and Zstandard begin
KEYS = ("offsets", "labels", "names", "texts")


class Scan(NamedTuple):
    """What is in some tar files.

    Attributes:
        offsets: [n, 4] int64, as in Packed.
        labels: [n] int64, rows of `values`, NO_LABEL for none.
        names: [n] bytes: the images' keys.
        values: The labels as texts.
        notes: About damage and labels that cannot be used, for the user.
    """

    offsets: np.ndarray
    labels: np.ndarray
    names: np.ndarray
    values: tuple[str, ...]
    notes: tuple[str, ...]


class Image(NamedTuple):
    """An image in a tar file.

    Attributes:
        stem: Its name up to the last dot.
        offset: Where its bytes begin.
        size: How many bytes it has.
    """

    stem: str
    offset: int
    size: int


def scan_shards_cached(shards: tuple[Shard, ...]) -> Scan:
    """Finds what is in some tar files, from the cache if they were scanned before.

    Args:
        shards: The tar files, in the order that ids follow.

    Raises:
        UserError: If a disk cannot read one; damage of a file becomes a note.
    """
    key = lines_digest([f"scan {SCAN}", *(f"{shard.path}\0{shard.stamp}" for shard in shards)])
    found = cache.cached_arrays(f"tars-{key[:16]}", lambda: _scan_shards(shards), KEYS)
    texts = json.loads(found["texts"].tobytes())
    offsets, labels, names = (np.array(found[key]) for key in KEYS[:3])
    return Scan(offsets, labels, names, tuple(texts["values"]), tuple(texts["notes"]))


def lines_digest(lines: Iterable[str]) -> str:
    """Returns the sha256, in hexadecimal, of some lines."""
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def labels_digest(labels: np.ndarray) -> str:
    """Returns the sha256, in hexadecimal, of labels as in Split: files of the same sizes may have others."""
    return hashlib.sha256(labels.tobytes()).hexdigest()


def _scan_shards(shards: tuple[Shard, ...]) -> dict[str, np.ndarray]:
    """Returns the arrays of a Scan; `texts` is JSON as uint8."""
    rows, labels, names, notes = [], [], [], []
    unusable: Counter[str] = Counter()
    others: Counter[str] = Counter()  # files that are neither images nor labels, by what their names end in
    left_out: list[str] = []
    for number, shard in enumerate(shards):
        images: dict[str, Image] = {}
        classes: dict[str, dict[str, str]] = {"cls": {}, "json": {}}  # by the name up to its last dot
        try:
            for member, data in _tar_members(shard.path):
                stem, _, end = member.name.rpartition(".")
                if len(stem.encode(errors="surrogateescape")) > NAME_BYTES:
                    continue
                if is_image(member.name):
                    images[member.name] = Image(stem, member.offset_data, member.size)
                elif end.lower() in classes:
                    try:
                        if (label := parse_label(end.lower(), data)) is not None:
                            classes[end.lower()][stem] = label
                    except ValueError as error:
                        unusable[str(error)] += 1
                elif not is_hidden(member.name.rpartition("/")[2]):
                    others[f".{end.lower()}"] += 1
        except (tarfile.TarError, *UNREADABLE) as error:  # tarfile trusts the sizes that headers state
            if isinstance(error, OSError) and error.errno:  # of the disk, not of the file
                raise UserError(f"{shard.path} cannot be read: {error.strerror}") from error
            reason = reason_of(error)
            notes.append(f"{shard.name} is damaged, {len(images):,} images of it are used: {reason}")
        chosen = _choose_images(images)
        left_out += [f"{shard.name}: {name}" for name in images if name not in chosen]
        rows += [(number, images[name].offset, images[name].size, len(rows) + i) for i, name in enumerate(chosen)]
        given = {**classes["json"], **classes["cls"]}
        labels += [given.get(images[name].stem, given.get(key)) for name, key in chosen.items()]
        names += [key.encode(errors="surrogateescape") for key in chosen.values()]
    if left_out:
        notes.append(f"left out, as other images have their keys: {some(left_out)}")
    if unusable:
        notes.append(f"{unusable.total():,} labels cannot be used, such as {unusable.most_common(1)[0][0]}")
    if others and not any(label is not None for label in labels):
        notes.append(
            f"not read as labels, which are .cls or .json: {some([f'{n:,} {end}' for end, n in others.items()])}"
        )
    values = sorted({label for label in labels if label is not None})
    number_of = {value: i for i, value in enumerate(values)}
    texts = json.dumps({"values": values, "notes": notes}).encode()
    return {
        "offsets": np.array(rows, np.int64).reshape(-1, 4),
        "labels": np.array([NO_LABEL if label is None else number_of[label] for label in labels], np.int64),
        "names": np.array(names, "S"),
        "texts": np.frombuffer(texts, np.uint8),
    }


def _choose_images(images: dict[str, Image]) -> dict[str, str]:
    """Returns the keys of the images to use, by the names of their files.

    A key ends at the first dot of a file's name, and has one image: the one with nothing but an extension behind it. If
    there is none, each is an image by itself, with all up to the last dot for a key: cat.0.png and cat.1.png.
    """
    by_key: dict[str, list[str]] = defaultdict(list)
    for name in images:
        folder, slash, base = name.rpartition("/")
        by_key[folder + slash + base.partition(".")[0]].append(name)
    chosen: dict[str, str] = {}
    for key, of in by_key.items():
        plain = [name for name in of if images[name].stem == key]
        if plain or len(of) == 1:
            chosen[(plain or of)[0]] = key
        else:
            chosen |= {name: images[name].stem for name in of}
    return {name: chosen[name] for name in images if name in chosen}


def parse_label(kind: str, data: bytes) -> str | None:
    """Parses the label in a key's .cls file, a number or a name, or in its .json file, under one of LABEL_KEYS.

    Args:
        kind: "cls" or "json".
        data: The file's bytes.

    Returns:
        The label as text; None if there is none, or a number below zero, which by custom stands for none.

    Raises:
        ValueError: If it is no class, such as a list; it shows the label.
    """
    text = data.decode("utf-8-sig", errors="surrogateescape").strip()
    if kind == "cls":
        return label_in_text(text)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{text[:40]!r}, which is no JSON") from error
    if isinstance(value, dict):
        named = {key.lower(): found for key, found in value.items() if found is not None}
        value = next((named[key] for key in LABEL_KEYS if key in named), None)
    return label_text(value)


def _tar_members(path: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Yields each regular file that is whole, and its bytes if it may be a label. Raises tarfile.TarError where the tar
    file is damaged, after all before that."""
    end = path.stat().st_size
    with open(path, "rb") as file:
        if file.read(4).startswith(COMPRESSION):
            raise tarfile.ReadError("it is compressed: decompress it first, for shards are read at any place in them")
    with tarfile.open(path, "r:") as tar:
        while member := tar.next():
            # of millions of members, none is asked for again
            tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]  # missing in typeshed
            if not member.isreg() or member.sparse is not None:
                continue
            if not 0 <= member.size <= end - member.offset_data:
                raise tarfile.ReadError(f"{member.name} is cut off")
            label = member.name.lower().endswith((".cls", ".json")) and member.size <= LABEL_BYTES
            content = tar.extractfile(member) if label else None
            yield member, b"" if content is None else content.read()
        tar.fileobj.seek(tar.offset)
        after = tar.fileobj.read(tarfile.BLOCKSIZE)  # tarfile takes whatever it cannot read for the end
        if after != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"neither a header nor the end mark at byte {tar.offset:,}")
