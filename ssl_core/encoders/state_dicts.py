"""Reads dicts of tensors from files: safetensors, checkpoints of torch.save, and folders of Hugging Face's libraries.

The kind of a file is known from its content, never from its name.
"""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import load as safetensors_load
from torch import Tensor

import ssl_core.encoders.pickles as pickles
from ssl_core.errors import UserError, some
from ssl_core.storage.files import exists, is_local, read_bytes

Tables = list[tuple[str, dict[str, Tensor]]]  # where each dict lies, as keys joined by dots, and its tensors

HUGGING_FACE = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
UNPACK = "unpack it first"
STATE = "save its state_dict with torch.save or as safetensors"
# the first bytes of what is taken for weights by mistake: (what it is, what would help)
OTHERS = {
    b"version https://git-lfs": ("a pointer of Git LFS, not the file that it stands for", "git lfs pull fetches that"),
    b"\x1f\x8b": ("compressed by gzip", UNPACK),
    b"BZh": ("compressed by bzip2", UNPACK),
    b"\xfd7zXZ": ("compressed by xz", UNPACK),
    b"\x28\xb5\x2f\xfd": ("compressed by Zstandard", UNPACK),
    b"7z\xbc\xaf": ("an archive of 7-Zip", UNPACK),
    b"\x89HDF": ("HDF5, as Keras writes it", STATE),
    b"\x93NUMPY": ("one array of NumPy", STATE),
    b"GGUF": ("GGUF", STATE),
}


def read_state_dicts(path: Path) -> Tables:
    """Reads every dict of tensors in a file, however deep it lies.

    Args:
        path: A file, an index of shards, or a folder that Hugging Face's libraries have written; of the latter two the
            model's weights are read, from one file or from all shards.

    Returns:
        In the file's order, for each dict the keys that lead to it, joined by dots, and its tensors.

    Raises:
        UserError: If the path is none of these, cannot be read, or holds what only unpickling could make.
    """
    if is_local(path) and path.is_dir():
        found = [path / name for name in HUGGING_FACE if exists(path / name)]
        if not found:
            raise UserError(f"{path} is a folder without {' or '.join(HUGGING_FACE[::2])}: give the file itself")
        path = found[0]
    data = _content(path)
    if data.lstrip()[:1] != b"{" or data[8:9] == b"{":  # where a header of safetensors begins
        return _parsed(path, data)
    try:  # an index of shards
        files = list(dict.fromkeys(str(file) for file in json.loads(data)["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is JSON, but no index of files with weights: it has no weight_map") from error
    if outside := [file for file in files if not file or file.startswith("/") or ".." in file.split("/")]:
        raise UserError(f"{path} names files outside its folder: {some(map(repr, outside))}")
    merged: dict[str, Tensor] = {}
    for file in (path.parent / file for file in files):
        for _, table in _parsed(file, _content(file)):
            merged |= table
    return [("", merged)]


def _content(path: Path) -> bytes:
    """Returns the content of a file.

    Raises:
        UserError: If it cannot be read, or is of a kind that holds no weights that are read here.
    """
    try:
        data = read_bytes(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    if other := _describe_other_file(data):
        raise UserError(f"{path} is {other[0]}: {other[1]}")
    return data


def _parsed(path: Path, data: bytes) -> Tables:
    if data[:2] == b"PK" or pickles.is_pickle(data):
        tables = list(_tables(pickles.load(data, path)))
        if any(tensor.is_meta for _, table in tables for tensor in table.values()):
            raise UserError(f"{path} holds names and shapes alone, no numbers: it was saved from the meta device")
        return tables
    try:
        return [("", safetensors_load(data))]
    except Exception as error:
        reason = pickles.first_line(error)
        if data[8:9] == b"{":
            raise UserError(f"{pickles.cut_off(path, data)} ({reason})") from error
        raise UserError(f"{path} is neither safetensors nor a checkpoint of torch.save ({reason})") from error


def _describe_other_file(data: bytes) -> tuple[str, str] | None:
    """Returns what a file is that holds no weights that are read here, and what would help; None for others."""
    if not data:
        return "empty", "download or copy it again"
    start = data[:1000].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not the file behind it", "download it by its direct link"
    if data[257:262] == b"ustar":
        return "a tar archive", UNPACK
    if data[:1] == b"\x08" and (b"onnx" in data[:4096] or b"pytorch" in data[:64]):
        return "an ONNX model", "its weights have lost their names: save the state_dict that it was made of"
    if data[:4] == b"PK\x03\x04" and zipfile.is_zipfile(io.BytesIO(data)):
        names = zipfile.ZipFile(io.BytesIO(data)).namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            return "a TorchScript archive", "save torch.jit.load(FILE).state_dict() with torch.save"
        if all(name.endswith(".npy") for name in names):
            return "arrays of NumPy (.npz)", STATE
        if not any(name.endswith("data.pkl") for name in names):
            return "a zip archive", UNPACK
    return next((other for magic, other in OTHERS.items() if data.startswith(magic)), None)


def _tables(obj: Any, where: tuple[str, ...] = (), parents: tuple[int, ...] = ()) -> Iterator[tuple[str, dict]]:
    """Finds every dict with tensors in an object, the outer ones first.

    Args:
        obj: Anything.
        where: Keys that lead to it.
        parents: Ids of the objects that hold it, which it may hold in its turn.

    Yields:
        The keys that lead to a dict, joined by dots, and its tensors.
    """
    if id(obj) in parents:
        return
    parents = (*parents, id(obj))
    if isinstance(obj, dict):
        tensors = {key: value for key, value in obj.items() if isinstance(key, str) and isinstance(value, Tensor)}
        if tensors:
            yield ".".join(where), tensors
        for key, value in obj.items():
            yield from _tables(value, (*where, str(key)), parents)
    elif isinstance(obj, (list, tuple)):
        for i, value in enumerate(obj):
            yield from _tables(value, (*where, str(i)), parents)
