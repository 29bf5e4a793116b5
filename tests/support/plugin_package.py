"""An installed package with a task, a protocol and a data source, and a file with another task, as users write them."""

import sys
from pathlib import Path

TASK = '''
"""Says whether an image was mirrored."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from kernels.random import randint
from kernels.rotate import rotate
from ssl_core.task import Task, TaskConfig, to_uint8


class Flip(Task):
    @dataclass(frozen=True, kw_only=True)
    class Config(TaskConfig):
        """Say whether an image was mirrored."""

        batch: int = 8
        eagerness: float = 0.5
        """an option of this task's own"""

    def __init__(self, config, encoder, data):
        super().__init__(config, encoder, data)
        self.size = data.size
        self.head = nn.Linear(encoder.widths[-1], 2)

    def make_batch(self, batch, bits, format):
        flips = randint(bits.draw("flip", 1)[:, 0], 2)
        still = torch.zeros_like(flips)
        corner = still[:, None].expand(-1, 2)
        return rotate(batch.images, still, flips, corner, size=self.size, **format.options()), flips

    def forward(self, encoder, inputs):
        return self.head(encoder(inputs)[-1].mean((2, 3)))

    def loss(self, predictions, targets):
        return F.cross_entropy(predictions.float(), targets, reduction="none")

    def visualize(self, inputs, predictions, targets):
        return [(image, "mirrored" if t else "as it was") for image, t in zip(to_uint8(inputs), targets.tolist())]
'''

PROTOCOL = '''
"""Measures how large an encoder's features are."""

from dataclasses import dataclass

import numpy as np

from ssl_core.evaluation.protocol import Protocol, Result


class Norm(Protocol):
    version = 1
    on = "features"
    needs_labels = False
    headline, higher_is_better = "norm", True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        scale: float = 1.0

    def run(self, features, config, seed):
        return Result({"norm": config.scale * float(np.linalg.norm(features.stages[-1]["test"], axis=1).mean())})
'''

SOURCE = '''
"""Stripes in two directions, which nobody has to download."""

import numpy as np

from ssl_core.data.data_source import DataSource
from ssl_core.data.dataset import Arrays, Source


def _split(n, size, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    stripes = rng.integers(0, 256, (n, size, 1, 3), np.uint8).repeat(size, 2)
    images = np.where(labels[:, None, None, None], stripes, stripes.swapaxes(1, 2))
    return Arrays(images.astype(np.uint8), labels.astype(np.int64))


class Stripes(DataSource):
    def opens(self, data):
        return data.startswith("stripes://")

    def load(self, data, size):
        n, size = int(data.removeprefix("stripes://")), size or 32
        train, test = _split(n, size, 0), _split(40, size, 1)
        return Source("stripes", f"stripes {n} {size}", size, train, test, ("rows", "columns"))
'''


def write_package(
    site: Path, name: str, modules: dict[str, str], entries: dict[str, dict[str, str]], version: str = "1.0"
) -> None:
    """Writes a package as pip leaves it in a folder of sys.path.

    Args:
        site: The folder.
        name: The package's.
        modules: Source by the name of each module in it.
        entries: By group of entry points, their values by their names.
        version: The package's.
    """
    (site / name).mkdir(parents=True)
    (site / name / "__init__.py").write_text("")
    for module, source in modules.items():
        (site / name / f"{module}.py").write_text(source)
    about = site / f"{name}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = (f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in of.items()) for group, of in entries.items())
    (about / "entry_points.txt").write_text("\n".join(groups))


def forget_modules(*names: str) -> None:
    """Lets the next import of these, and of what is in them, begin anew."""
    for module in list(sys.modules):
        if any(module == name or module.startswith(f"{name}.") for name in names):
            del sys.modules[module]
