"""Files of weights: their content says what they are; what is safe is read, and one line says what the rest is."""

import argparse
import contextlib
import gzip
import io
import json
import os
import pickle
import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from ssl_core.encoders.state_dicts import read_state_dicts
from ssl_core.errors import UserError

STATE = OrderedDict({"conv.weight": torch.arange(6.0).view(2, 3), "n": torch.tensor(3), "half": torch.ones(2).half()})
OLD = {"_use_new_zipfile_serialization": False}


def bytes_of(held, **options) -> bytes:
    out = io.BytesIO()
    torch.save(held, out, **options)
    return out.getvalue()


def found(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    return dict(read_state_dicts(path))


def is_state(found) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[name], STATE[name]) for name in STATE)


class Config:
    """What a program keeps its options in."""


@pytest.mark.parametrize("options", [{}, OLD], ids=["zip", "old"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_and_what_is_harmless(protocol, options, tmp_path):
    """Numbers of NumPy, options of a command line, nested dicts and lists, long texts, and one tensor in two places."""
    held = {
        "state_dict": STATE,
        "ema": {"shadow": STATE},
        "list": [STATE, (1, 2**70, -1.5, None, True, "x" * 300, "ü")],
        "args": argparse.Namespace(lr=np.float32(0.1), name="conv.weight"),
        "best": np.float64(0.5),
        "step": np.int64(3),
        "done": np.bool_(True),
        "who": np.str_("me"),
        "raw": b"\x00\xff",
        0: {"exp_avg": torch.ones(1)},
    }
    (tmp_path / "w").write_bytes(bytes_of(held, pickle_protocol=protocol, **options))
    tables = found(tmp_path / "w")
    assert list(tables) == ["state_dict", "ema.shadow", "list.0", "0"]
    assert all(is_state(tables[where]) for where in ("state_dict", "ema.shadow", "list.0"))


def test_numpy_1_had_other_names(tmp_path):
    data = bytes_of({"s": STATE, "best": np.float64(1)}, **OLD).replace(b"numpy._core.multi", b"numpy.core.multi")
    (tmp_path / "w").write_bytes(data)
    assert is_state(found(tmp_path / "w")["s"])


@pytest.mark.parametrize("options", [{}, OLD, {"pickle_protocol": 4}], ids=["zip", "old", "4"])
@pytest.mark.parametrize("held", [Config(), nn.Linear(2, 2), Path("x"), np.array([Config()], dtype=object)])
@pytest.mark.slow
def test_what_stands_in_the_way_is_named(held, options, tmp_path):
    """In one line without a terminal's codes, and the command in it saves what is needed."""
    kind = "ObjectDType" if isinstance(held, np.ndarray) else type(held).__name__
    (tmp_path / "it's $w.pth").write_bytes(bytes_of({"state_dict": STATE, "x": held}, **options))
    with pytest.raises(UserError, match=rf"w.pth holds a \S*{kind}\b") as error:
        read_state_dicts(tmp_path / "it's $w.pth")
    line = str(error.value)
    assert "\n" not in line and "\x1b" not in line and "nothing else is unpickled here" in line
    if options == {} and kind == "Linear":
        command = re.search(r'python (-c ".*") saves', line)[1]
        subprocess.run(f"{shlex.quote(sys.executable)} {command}", shell=True, cwd=tmp_path, check=True)
        assert is_state(found(tmp_path / "tensors-it's $w.pth")["state_dict"])


@pytest.mark.slow
def test_the_command_saves_the_weights_of_a_module(tmp_path):
    module = nn.Linear(2, 2)
    torch.save(module, tmp_path / "m.pth")
    with pytest.raises(UserError, match=r"holds a torch\.nn.modules.linear.Linear") as error:
        read_state_dicts(tmp_path / "m.pth")
    command = re.search(r'python (-c ".*") saves', str(error.value))[1]
    subprocess.run(f"{shlex.quote(sys.executable)} {command}", shell=True, cwd=tmp_path, check=True)
    assert torch.equal(found(tmp_path / "tensors-m.pth")[""]["weight"], module.weight)


class Trap:
    """A pickle that makes a folder when it is read."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_nothing_is_run(protocol, tmp_path):
    held = {"state_dict": STATE, "args": Trap(tmp_path / "sprung")}
    (tmp_path / "bare.pkl").write_bytes(pickle.dumps(held, protocol))
    for name, options in (("zip.pth", {}), ("old.pth", OLD)):
        (tmp_path / name).write_bytes(bytes_of(held, pickle_protocol=protocol, **options))
    for name in ("bare.pkl", "zip.pth", "old.pth"):
        with contextlib.suppress(UserError):
            read_state_dicts(tmp_path / name)
            raise AssertionError(name)
    assert not (tmp_path / "sprung").exists()


def traced() -> bytes:
    out = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), out)
    return out.getvalue()


def packed(kind: str) -> bytes:
    out = io.BytesIO()
    if kind == "npz":
        np.savez(out, a=np.zeros(2))
    elif kind == "npy":
        np.save(out, np.zeros(2))
    elif kind == "zip":
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("w.pth", bytes_of(STATE))
    else:
        with tarfile.open(fileobj=out, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("w.pth"))
    return out.getvalue()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (traced, "TorchScript archive: save torch.jit.load"),
        (lambda: packed("npz"), r"arrays of NumPy \(.npz\)"),
        (lambda: packed("npy"), "one array of NumPy"),
        (lambda: packed("zip"), "zip archive: unpack it first"),
        (lambda: packed("tar"), "a tar archive: unpack it first"),
        (lambda: gzip.compress(bytes_of(STATE)), "compressed by gzip: unpack it first"),
        (lambda: b"\x08\x0a\x12\x07pytorch\x1a\x03", "an ONNX model"),
        (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 9\n", "pointer of Git LFS"),
        (lambda: b"\n<!DOCTYPE html><html>", "a web page, not the file behind it"),
        (lambda: b"", "is empty"),
        (lambda: bytes_of(STATE)[:200], "is cut off or damaged, at 200 bytes"),
        (lambda: bytes_of(STATE)[:-9], "is cut off or damaged"),
        (lambda: bytes_of(STATE, **OLD)[:300], "is cut off or damaged"),
        (lambda: bytes_of(STATE, **OLD)[:-3], "is cut off or damaged"),
        (lambda: bytes_of(STATE, pickle_protocol=4, **OLD)[:300], "is cut off or damaged"),
        (lambda: save(STATE)[:60], "is cut off or damaged"),
        (lambda: save(STATE)[:-1], "is cut off or damaged"),
        (lambda: pickle.dumps({"w": np.zeros(2)}, 4), "a pickle that torch.save did not write"),
        (lambda: b'{"a": 1}', "is JSON, but no index of files"),
        (lambda: b"weights", "neither safetensors nor a checkpoint"),
    ],
)
def test_what_is_no_weights_is_named(content, said, tmp_path):
    (tmp_path / "w.pth").write_bytes(content())
    with pytest.raises(UserError, match=rf"w.pth (is )?(a )?({said})") as error:
        read_state_dicts(tmp_path / "w.pth")
    assert "\n" not in str(error.value) and "\x1b" not in str(error.value)


def test_an_extension_counts_for_nothing(tmp_path):
    save_file(STATE, tmp_path / "w.pth")
    torch.save(STATE, tmp_path / "w.safetensors")
    assert is_state(found(tmp_path / "w.pth")[""]) and is_state(found(tmp_path / "w.safetensors")[""])


def test_folders_and_shards_of_hugging_face(tmp_path):
    names = list(STATE)
    parts = {"a.safetensors": names[:1], "b.safetensors": names[1:]}
    for file, own in parts.items():
        save_file({name: STATE[name] for name in own}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, own in parts.items() for name in own}}))
    assert is_state(found(index)[""]) and is_state(found(tmp_path)[""])
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(UserError, match=r"b\.safetensors cannot be read: No such file"):
        read_state_dicts(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": index.name}}))
    with pytest.raises(UserError, match="neither safetensors"):
        read_state_dicts(index)
    (tmp_path / "model.safetensors").write_bytes(save(STATE))
    assert is_state(found(tmp_path)[""])
    with pytest.raises(UserError, match=r"a folder without model.safetensors or pytorch_model.bin"):
        (tmp_path / "none").mkdir()
        read_state_dicts(tmp_path / "none")


def test_an_index_of_shards_in_other_folders(tmp_path):
    (tmp_path / "sub").mkdir()
    save_file({"a": torch.ones(2)}, tmp_path / "sub" / "m.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "sub/m.safetensors"}}))
    assert torch.equal(found(tmp_path)[""]["a"], torch.ones(2))
    for outside in ("../m.safetensors", "/m.safetensors", ""):
        index.write_text(json.dumps({"weight_map": {"a": outside}}))
        with pytest.raises(UserError, match="names files outside its folder"):
            read_state_dicts(tmp_path)


def test_a_dict_that_holds_itself(tmp_path):
    held = {"state_dict": STATE}
    held["again"] = held
    torch.save(held, tmp_path / "w.pth")
    assert is_state(found(tmp_path / "w.pth")["state_dict"])


def test_tensors_without_numbers_are_refused(tmp_path):
    torch.save({"a": torch.empty(2, device="meta")}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="holds names and shapes alone"):
        read_state_dicts(tmp_path / "w.pth")


@pytest.mark.parametrize("odd", [{1, 2}, frozenset({1}), bytearray(b"1")], ids=lambda odd: type(odd).__name__)
def test_what_protocol_2_has_no_word_for_is_named(tmp_path, odd):
    torch.save({"state_dict": STATE, "odd": odd}, tmp_path / "w.pth", pickle_protocol=5)
    with pytest.raises(UserError, match=f"holds a {type(odd).__name__}, and nothing but tensors"):
        read_state_dicts(tmp_path / "w.pth")


def test_a_header_as_long_as_a_brace_says(tmp_path):
    """The length of a safetensors header is its first bytes, which may look like JSON."""
    data = save({"a": torch.ones(2)}, {"note": "x" * 40})
    wanted = int.from_bytes(b" {\0\0\0\0\0\0", "little")
    header = data[8 : 8 + int.from_bytes(data[:8], "little")].rstrip().ljust(wanted)
    (tmp_path / "w.safetensors").write_bytes(
        b" {\0\0\0\0\0\0" + header + data[8 + int.from_bytes(data[:8], "little") :]
    )
    assert torch.equal(found(tmp_path / "w.safetensors")[""]["a"], torch.ones(2))
