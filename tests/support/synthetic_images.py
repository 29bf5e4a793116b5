"""Small made-up images with something to learn in them, and the pieces of a training run on them."""

import numpy as np
import torch

import ssl_core.encoders.build as encoders
from ssl_core.data.batch import Batch
from ssl_core.data.dataset import Arrays
from ssl_core.task import DataInfo, InputFormat, PretextModel, tasks

CLASSES = 10
IMAGES = 64  # that a task is told there are
FORMAT = InputFormat((125.0, 120.0, 115.0), (63.0, 62.0, 66.0))


def gradients(count: int, size: int = 32, seed: int = 0) -> torch.Tensor:
    """[count, size, size, 3] uint8: a vertical color gradient, darker on one side of a random edge."""
    draw = torch.Generator().manual_seed(seed)
    line = torch.linspace(0, 1, size)
    y, x = line.view(1, size, 1, 1), line.view(1, 1, size, 1)
    top, bottom = torch.rand(2, count, 1, 1, 3, generator=draw)
    angle, place = torch.rand(2, count, 1, 1, 1, generator=draw)
    lit = x * (6.3 * angle).cos() + y * (6.3 * angle).sin() > place - 0.3
    return ((top * (1 - y) + bottom * y) * torch.where(lit, 255.0, 100.0)).to(torch.uint8)


def arrays(count: int, size: int = 32, classes: int = CLASSES, seed: int = 0) -> Arrays:
    """Such images in memory, labeled in turn."""
    return Arrays(gradients(count, size, seed).numpy(), np.arange(count, dtype=np.int64) % classes)


def stripes(count: int, seed: int) -> Arrays:
    """Stripes that run down (class 0) or across (class 1) in random colors: no single pixel tells."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    wave = 127 + 100 * np.sin(np.arange(16) * 1.5 + random.uniform(0, 6, (count, 1)))
    down = np.broadcast_to(wave[:, None, :, None], (count, 16, 16, 3))
    images = np.where(labels[:, None, None, None] == 1, down.transpose(0, 2, 1, 3), down)
    return Arrays((images * random.uniform(0.4, 1, (count, 1, 1, 3))).astype(np.uint8), labels)


def batch_of(count: int, size: int = 32, epoch: int = 0) -> Batch:
    """A batch of such images, labeled in turn."""
    ids = torch.arange(count)
    return Batch(gradients(count, size), ids, torch.full_like(ids, epoch), torch.ones(count), ids % CLASSES)


def suited(task: str, encoder: str) -> str:
    """`encoder`, or a vision transformer for a task that needs one."""
    return "vit-small-images" if tasks()[task].needs_tokens else encoder


def pretext(task: str, encoder: str = "convnet", size: int = 32, seed: int = 0, **options) -> PretextModel:
    """The module that trains `encoder`, or one that suits the task, always initialized in the same way."""
    encoder = suited(task, encoder)
    built = encoders.build(encoder, size, seed)
    info = encoders.describe(built, encoder, size)
    kind = tasks()[task]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PretextModel(built, kind(kind.Config(**options), info, DataInfo(size, CLASSES, IMAGES)))
