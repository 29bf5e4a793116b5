"""Folders of small pictures for tests."""

from pathlib import Path

from PIL import Image

from ssl_core.data.dataset import Files
from support.synthetic_images import gradients


def put(folder: Path, *names: str) -> None:
    """Writes a small picture under each of these names, which may be paths."""
    for image, name in zip(gradients(len(names), 16).numpy(), names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / name)


def names_of(files: Files, root: Path) -> list[str]:
    """Returns the paths of the files of a split from a folder on."""
    return [str(path.relative_to(root)) for path in files.paths]
