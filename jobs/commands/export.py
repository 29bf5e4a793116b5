"""Runs `tilespin export ENCODER`: writes an encoder for other programs, checked before its file is there."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from jobs.config.options import VerbOptions
from jobs.config.parsing import parse
from ssl_core.encoders.export import export_encoder
from ssl_core.encoders.pretrained import load_pretrained
from ssl_core.errors import UserError
from ssl_core.storage.files import is_local, open_path, write_bytes


@dataclass(frozen=True, kw_only=True)
class Options(VerbOptions):
    """Write an encoder for other programs. The file appears only after it was read back and compared on random pixels.
    Batch norm keeps the statistics of the training's crops or tiles, which evaluations estimate anew."""

    encoder: Annotated[str, tyro.conf.Positional]
    """a run's folder, such as runs/demo/pretrain/rotnet-0123456789ab, or what `tilespin evaluate --encoder` takes"""
    format: Literal["safetensors", "timm", "torchscript", "onnx"]
    """safetensors: the weights
    timm: a state dict that timm's model of this name loads
    torchscript, onnx: the whole computation, which takes uint8 pixels and standardizes them"""
    output: str
    """file to write, or a URL"""
    size: int | None = None
    """side of the images in pixels, which onnx fixes; default: that of the training, or 224 if it is not known"""


def main(arguments: list[str]) -> None:
    """Runs `tilespin export` with these command-line arguments."""
    options = parse(Options, "export", arguments)
    output = open_path(options.output, "--output")
    one = load_pretrained(options.encoder)
    trained = one.origin.training if one.origin else None
    size = options.size or (trained.size if trained else one.built if one.origin else 224)
    if size < 8:
        raise UserError(f"--size is {size}, expected at least 8")
    try:
        if is_local(output) and output.exists() and not output.is_file():
            raise UserError(
                f"--output {options.output} is {'a folder: give a file in it' if output.is_dir() else 'no plain file'}"
            )
        data, use = export_encoder(one, size, options.format)
        write_bytes(output, data)
    except OSError as error:
        blocked = f" ({error.filename})" if error.filename not in (None, str(output)) else ""
        raise UserError(f"--output {options.output} cannot be written: {error.strerror or error}{blocked}") from error
    for note in one.notes:
        print(f"{one.label}: {note}")
    print(f"{output}: {len(data) / 2**20:.1f} MiB, read back and compared\n{use}")
