"""Tar files in webdataset's layout, of small images."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from ssl_core.data.dataset import Shard
from support.synthetic_images import gradients


def picture(number: int, format: str = "png") -> bytes:
    file = io.BytesIO()
    Image.fromarray(gradients(1, 16, number)[0].numpy()).save(file, format)
    return file.getvalue()


def write(path: Path, members: Iterable[tuple[str, bytes]], **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def labeled(start: int, count: int, classes: int = 2):
    for i in range(start, start + count):
        yield f"{i:04d}.png", picture(i)
        yield f"{i:04d}.cls", f"{i % classes}\n".encode()


def named(names: Iterable[str], kind: str = "cls", start: int = 0):
    """Images with a label each: text in .cls, or a JSON value in .json."""
    for i, name in enumerate(names, start):
        yield f"{i:04d}.png", picture(i)
        yield f"{i:04d}.{kind}", (f'{{"label": {name}}}' if kind == "json" else name).encode()


def open_shards(root: Path) -> tuple:
    return tuple(Shard(path, "") for path in sorted(root.glob("*.tar")))
