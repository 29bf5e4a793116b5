"""Reads checkpoints of torch.save by torch's restricted reader alone.

A pickle is a program, and no program that comes with a file is run.
"""

import io
import pickletools
import re
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl_core.errors import UserError

MAGIC = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")  # the first of the pickles that torch wrote before 1.6
LEGACY = 5  # pickles that a file of torch.save begins with, as torch wrote it before 1.6; bytes of tensors follow
# what a text may be pushed by; torch's reader knows the second alone
TEXTS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
BYTES = ("SHORT_BINBYTES", "BINBYTES", "BINBYTES8")
# of what protocol 2 has no word for, by opcode
TYPES = {0x8F: "set", 0x90: "set", 0x91: "frozenset", 0x96: "bytearray"}
CUT_SHORT = (EOFError, struct.error, IndexError, zipfile.BadZipFile)  # what reading beyond the end raises


class IgnoredObject:
    """Stands in for the command line (argparse.Namespace) that a checkpoint may keep.

    It accepts any state and keeps none.
    """

    def __setstate__(self, state):
        pass


def _allowed_types() -> list:
    """Returns what a pickle may name in addition to torch's own list.

    It is NumPy's numbers and arrays of numbers, under the names that NumPy 1 and 2 give them, and a stand-in for the
    options of a command line, which timm's and DINO's files hold.
    """
    scalar, array = np.float32(0).__reduce__()[0], np.zeros(0).__reduce__()[0]
    kinds = {type(np.dtype(code)) for code in np.typecodes["All"] if code not in "OV"}  # not of objects
    named: list = [np.ndarray, np.dtype, *kinds, (IgnoredObject, "argparse.Namespace")]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        named += [(scalar, f"{module}.scalar"), (array, f"{module}._reconstruct")]
    return named


def is_pickle(data: bytes) -> bool:
    """Returns whether the content of a file begins as a pickle of protocol 2 to 5 does."""
    return data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


def load(data: bytes, path: object) -> Any:
    """Reads a checkpoint: a zip of torch.save, or the pickles that it wrote before PyTorch 1.6.

    Args:
        data: The file's content.
        path: The file, for messages.

    Returns:
        Tensors on the CPU, numbers, texts and containers of them.

    Raises:
        UserError: If the file holds anything else, which the message names, is damaged, or is no checkpoint.
    """
    if is_pickle(data) and MAGIC not in data[:32]:
        raise UserError(f"{path} is a pickle that torch.save did not write: nothing else is unpickled here")
    try:
        with torch.serialization.safe_globals(_allowed_types()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(_as_protocol_2(data)), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the reader trips over
        if (unknown := re.search(r"Unsupported operand (\d+)", str(error))) and int(unknown[1]) in TYPES:
            raise _foreign_type_error(path, TYPES[int(unknown[1])]) from error
        if found := re.search(r"GLOBAL (\S+)|but got <class '(.+?)'>|unrecognized function (.+)", str(error)):
            raise _foreign_type_error(path, next(filter(None, found.groups()))) from error
        if isinstance(error, CUT_SHORT) or re.search("exhausted|unexpected EOF", str(error)):
            raise UserError(cut_off(path, data)) from error
        raise UserError(
            f"{path} is neither safetensors nor a checkpoint that torch.save wrote ({first_line(error)}); nothing else "
            "is unpickled here"
        ) from error


def _foreign_type_error(path: object, kind: str) -> UserError:
    return UserError(
        f"{path} holds a {kind}, and nothing but tensors, numbers and containers of them is read: nothing else is "
        f"unpickled here. Where it was made, {_rewrite(path)} saves its tensors alone"
    )


def cut_off(path: object, data: bytes) -> str:
    """Returns the message that a file is cut off or damaged, with its size in bytes."""
    return f"{path} is cut off or damaged, at {len(data):,} bytes: download or copy it again"


def first_line(error: Exception) -> str:
    """Returns the sentence of an error that says what is wrong, without the terminal's escape codes."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return plain.split("WeightsUnpickler error: ")[-1].split("\n")[0][:150].strip() or type(error).__name__


def _rewrite(path: object) -> str:
    """Returns a command that saves only a checkpoint's tensors, in their dicts, or the weights of a whole module."""
    name = Path(str(path)).name
    code = (
        "import torch; f = lambda d: {k: f(v) if isinstance(v, dict) else v for k, v in d.items() "
        f"if isinstance(v, (dict, torch.Tensor))}}; c = torch.load({name!r}, 'cpu', weights_only=False); "
        f"torch.save(f(c if isinstance(c, dict) else c.state_dict()), {'tensors-' + name!r})"
    )
    return 'python -c "' + re.sub(r'([\\"$`])', r"\\\1", code) + '"'


def _as_protocol_2(data: bytes) -> bytes:
    """Returns the same checkpoint with pickles of protocol 2, the one that torch's restricted reader knows."""
    if is_pickle(data):
        stream = io.BytesIO(data)
        return data if data[1] == 2 else b"".join(_to_protocol_2(stream) for _ in range(LEGACY)) + stream.read()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        pickled = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if not pickled or archive.read(pickled[0])[1] == 2:
            return data
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as lowered:
            for name in archive.namelist():
                content = archive.read(name)
                lowered.writestr(name, _to_protocol_2(io.BytesIO(content)) if name == pickled[0] else content)
    return out.getvalue()


def _to_protocol_2(stream: io.BytesIO) -> bytes:
    """Rewrites the pickle that begins here, of any protocol, as one of protocol 2, without building what it describes.

    It leaves `stream` behind the pickle. What protocol 2 has no word for stays as it is, and the reader refuses it.
    """
    raw = stream.getvalue()
    steps = list(pickletools.genops(stream))
    ends = [at for _, _, at in steps[1:]] + [stream.tell()]
    out: list[bytes] = []
    kept: dict[int, bytes] = {}  # places of the memo that hold a text: it is pushed anew wherever it is asked for
    count = 0  # places in the memo that MEMOIZE has filled
    for (op, arg, at), end in zip(steps, ends, strict=True):
        value: Any = arg
        if op.name == "PROTO":
            out.append(b"\x80\x02")
        elif op.name in TEXTS:
            out.append(_text_opcode(value))
        elif op.name in BYTES:  # as protocol 2 has them: text of the same code points, to be encoded
            out.append(
                b"c_codecs\nencode\n" + _text_opcode(value.decode("latin-1")) + _text_opcode("latin-1") + b"\x86R"
            )
        elif op.name == "STACK_GLOBAL":
            module, name = (text[5:].decode() for text in out[-2:] if text[:1] == b"X")
            out[-2:] = [f"c{module}\n{name}\n".encode()]
        elif op.name == "MEMOIZE" or "PUT" in op.name:
            position = count if op.name == "MEMOIZE" else value
            count += 1
            if out[-1][:1] == b"X":
                kept[position] = out[-1]
            else:
                kept.pop(position, None)
                out.append(b"r" + struct.pack("<I", position))
        elif "GET" in op.name and value in kept:
            out.append(kept[value])
        elif op.name != "FRAME":
            out.append(raw[at:end])
    return b"".join(out)


def _text_opcode(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded
