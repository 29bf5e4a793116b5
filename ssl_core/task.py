"""What every pretext task is: how a batch is made of images, what is predicted, what it costs."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

import ssl_core.tasks
from kernels.random import RandomBits, randint
from ssl_core.data.batch import Batch
from ssl_core.errors import UserError
from ssl_core.optim import Optim
from ssl_core.plugins import modules, subclass_in


@dataclass(frozen=True)
class InputFormat:
    """What the network wants its pixels to be: `mean` and `std` are per channel, in units of 0..255."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: torch.dtype = torch.float32
    channels_last: bool = True

    def options(self) -> dict:
        """The keyword arguments that every image kernel takes."""
        return dict(mean=self.mean, std=self.std, dtype=self.dtype, channels_last=self.channels_last)


@dataclass(frozen=True)
class EncoderInfo:
    """The stages of an encoder, shallow to deep: channels and how many input pixels a cell spans."""

    name: str
    widths: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class DataInfo:
    """What a task may know of its data: the images' side in pixels, the number of classes (0: no labels), and how many
    training images there are, which only tasks that remember each of them need (0: not said)."""

    size: int
    classes: int = 0
    images: int = 0


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """Options that every pretext task has; a task's own Config gives them the defaults of its recipe."""

    side_by_side: ClassVar[int] = 1
    """Images that the task needs in each part of a global batch, all workers' together: 2 if it compares them with each
    other. No option, but a property where options decide it; checked before anything runs, see train.check_parts."""

    batch: int = 64
    """images in a global batch, whatever the number of workers"""
    optim: Optim = Optim()


class Task(nn.Module):
    """A pretext task: one file in ssl_core/tasks/ with one subclass of this, and nothing else to edit.

    Chance comes from `bits` alone and pixels move in kernels, so that a batch depends on the images,
    the seed and the epoch, and never on the loader, the worker or the machine.
    """

    Config: type[TaskConfig] = TaskConfig
    normalization: Literal["dataset", "image"] = "dataset"  # "image": the task standardizes every image

    def __init__(self, config: TaskConfig, encoder: EncoderInfo, data: DataInfo):
        super().__init__()
        self.config = config

    def make_batch(self, batch: Batch, bits: RandomBits, format: InputFormat) -> tuple:
        """-> (inputs, targets); `inputs` is what `forward` gets, one or several views of each image."""
        raise NotImplementedError

    def forward(self, encoder: nn.Module, inputs):
        """-> predictions. The head's parameters live on the task."""
        raise NotImplementedError

    def loss(self, predictions, targets) -> Tensor:
        """-> [b] float32, one loss an image."""
        raise NotImplementedError

    def metrics(self, predictions, targets) -> dict[str, Tensor]:
        """-> name: [b] float32, one value an image; nothing here may wait for the device."""
        return {}

    def after_step(self, predictions, targets) -> None:
        """Called after the optimizer's step, once for each part of an accumulated batch, by all workers equally often;
        for tasks with a memory."""

    def visualize(self, inputs, predictions, targets) -> list[tuple[Tensor, str]]:
        """What the task sees and says, for people: ([h, w, 3] uint8 on the CPU, caption) for each image."""
        raise NotImplementedError


def tasks() -> dict[str, type[Task]]:
    """Every task by its file's name."""
    found = {name: subclass_in(module, Task) for name, module in modules(ssl_core.tasks).items()}
    return {name: task for name, task in found.items() if task is not None}


def task_name(config: TaskConfig) -> str:
    """The name of the task that `config` belongs to."""
    return next(name for name, task in tasks().items() if task.Config is type(config))


class PretextModel(nn.Module):
    """The one module that is trained (and wrapped by DDP): an encoder and a task's head."""

    def __init__(self, encoder: nn.Module, task: Task):
        super().__init__()
        self.encoder, self.task = encoder, task

    def forward(self, inputs):
        return self.task(self.encoder, inputs)


def crop_side(crop: float, size: int) -> int:
    """The side in pixels of a random window that spans the fraction `crop` of an image's side.

    Raises UserError unless 0 < crop <= 1.
    """
    if not 0 < crop <= 1:
        raise UserError(f"crop is {crop}: expected a fraction of the image's side, above 0 and at most 1")
    return max(1, round(crop * size))


def crop_corners(words: Tensor, images: Tensor, size: int) -> Tensor:
    """[b, 2] words -> [b, 2] int64 (y, x): where a window of side `size` starts, uniform over the image."""
    free = torch.tensor(images.shape[1:3]) - size + 1
    return torch.stack([randint(words[:, i], int(free[i])) for i in (0, 1)], dim=1)


def to_uint8(images: Tensor) -> Tensor:
    """[b, c, h, w] of any normalization -> [b, h, w, 3] uint8 on the CPU, each stretched to 0..255."""
    images = images.detach().float().cpu()
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    scaled = (images - low) / (high - low).clamp(min=1e-6) * 255
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).expand(-1, -1, -1, 3).contiguous()
