"""What every pretext task is: how a batch is made of images, what is predicted, what it costs."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

import ssl_core.tasks
from kernels.random import RandomBits, randint
from ssl_core.data.batch import Batch
from ssl_core.data.decoding.crops import MIN_AREA
from ssl_core.errors import UserError
from ssl_core.optim import Optim
from ssl_core.plugins import Kind, source_digest


@dataclass(frozen=True)
class InputFormat:
    """How the network wants its pixels: normalized, in one dtype and one memory order.

    Attributes:
        mean: Of each channel, in pixel units (0..255); it is subtracted.
        std: Of each channel, in pixel units; pixels are divided by it.
        dtype: Of the inputs.
        channels_last: Whether inputs lie in memory as [b, h, w, c]; their shape is [b, c, h, w] in any case.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: torch.dtype = torch.float32
    channels_last: bool = True

    def options(self) -> dict[str, Any]:
        """Returns the keyword arguments that every image kernel takes."""
        return dict(mean=self.mean, std=self.std, dtype=self.dtype, channels_last=self.channels_last)


@dataclass(frozen=True)
class EncoderInfo:
    """What a task may know of its encoder.

    Attributes:
        name: As `--encoder` takes it.
        widths: Channels of each stage's feature map, shallow to deep.
        strides: How many input pixels lie between two positions of each stage's map; 0 for a stage that is a vector
            of the whole image, such as a class token, given as a map of one cell.
        patch_size: Sides of the images that it is shown have to be multiples of this, in pixels.
        prefix: For an encoder with `tokens`: how many of them, class and register tokens, come before those of the
            patches. None for an encoder without.
    """

    name: str
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    patch_size: int = 1
    prefix: int | None = None

    @property
    def last_map(self) -> int:
        """Returns the number, from 0, of the deepest stage that is a map of the image."""
        return max(i for i, stride in enumerate(self.strides) if stride)


@dataclass(frozen=True)
class DataInfo:
    """What a task may know of its data.

    Attributes:
        size: Side of the images, in pixels.
        classes: How many classes there are; 0 without labels.
        images: How many training images there are, for tasks that remember each of them; 0 if unknown.
    """

    size: int
    classes: int = 0
    images: int = 0


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """Options that every pretext task has; a task's own Config gives them the defaults of its recipe."""

    side_by_side: ClassVar[int] = 1
    """Images that the task needs in each part of a global batch, all workers' together: 2 if it compares them with each
    other. No option, but a property where options decide it; checked before anything runs, see parts.check_parts."""

    parts: ClassVar[tuple[str, ...]] = ()
    """Names of other tasks that this one is made of. No option, but a property where options decide it."""

    needs_labels: ClassVar[bool] = False
    """Whether the task is trained on labeled images only, even where there are others. No option."""

    batch: int = 64
    """images in a global batch, whatever the number of workers"""
    loader_min_area: float = MIN_AREA
    """smallest area of the square that the loader cuts out of an image file at random, as a share of the largest
    square's; the images of cifar10 and fashion-mnist are not cut"""
    optim: Optim = Optim()


class Task(nn.Module):
    """A pretext task: one file in ssl_core/tasks/ with one subclass of this, or a plug-in.

    A task makes inputs and targets of a batch of images, holds the head that predicts the targets from the encoder's
    features, and says what the loss is. Every random choice is drawn from `bits` and every pixel is moved by a kernel,
    so that a batch depends on the images, the seed and the epoch, and never on the loader, the worker or the machine.

    Attributes:
        Config: The task's options, a frozen dataclass; each field is an option of the command line.
        normalization: "dataset" if the encoder sees pixels normalized by the dataset's mean and standard deviation,
            "image" if the task standardizes every image by its own.
        needs_tokens: Whether the task needs an encoder with `tokens`, a vision transformer.
        capturable: Whether a CUDA graph can hold its steps, so that Python runs `make_batch` to `after_step` once for
            all of them: they never wait for the device, nor copy from or to the CPU, they make the same shapes of every
            batch, and what the task remembers is buffers, changed in place.
    """

    Config: type[TaskConfig] = TaskConfig
    normalization: Literal["dataset", "image"] = "dataset"
    needs_tokens: ClassVar[bool] = False
    capturable: ClassVar[bool] = False

    def __init__(self, config: TaskConfig, encoder: EncoderInfo, data: DataInfo):
        """Builds the head, with random weights from torch's generator.

        Args:
            config: The options, of the class `Config`.
            encoder: What is known of the encoder whose features the head gets.
            data: What is known of the training images.

        Raises:
            UserError: If the options do not fit each other, the encoder or the data.
        """
        super().__init__()
        if self.needs_tokens and encoder.prefix is None:
            raise UserError(
                f"{task_name(config)} drops patch tokens, which encoder {encoder.name!r} does not have: choose a "
                "vision transformer: vit-small-images, or timm's, such as vit_tiny_patch16_224"
            )
        self.config = config

    def make_batch(self, batch: Batch, bits: RandomBits, format: InputFormat) -> tuple:
        """Makes the encoder's inputs and the targets of a batch.

        Args:
            batch: b images, [b, height, width, 3] uint8, with ids, weights and labels.
            bits: The random bits of these images in their epochs: the only source of chance.
            format: How the pixels are to be normalized and laid out.

        Returns:
            (inputs, targets): `inputs` is what `forward` gets, one or several views of each image; `targets` is what
            `loss` and `metrics` get beside the predictions. Either may be a tensor or a tuple.
        """
        raise NotImplementedError

    def forward(self, encoder: nn.Module, inputs):
        """Returns the predictions of the head, whose parameters belong to the task.

        Args:
            encoder: [n, 3, h, w] -> list of feature maps [n, width, h', w'], shallow to deep; a vision transformer's
                ends in vectors [n, width, 1, 1] and has `tokens`, see ssl_core.encoders.tokens.
            inputs: What `make_batch` gave.
        """
        raise NotImplementedError

    def loss(self, predictions, targets) -> Tensor:
        """Returns [b] float32, one loss for each image."""
        raise NotImplementedError

    def metrics(self, predictions, targets) -> dict[str, Tensor]:
        """Returns [b] float32 values, one for each image, by the metric's name.

        It is called at each step, so nothing here may wait for the device.
        """
        return {}

    def copy_encoder(self, encoder: nn.Module) -> None:
        """Copies the encoder at its start, for a task that keeps a teacher; called once, before training.

        Args:
            encoder: The encoder, on the CPU, with the weights that training starts from.
        """

    def after_step(self, encoder: nn.Module, outcomes: list[tuple[Any, Any]], progress: float | Tensor) -> None:
        """Updates what a task remembers, such as a memory bank or a teacher, after the optimizer's step.

        All workers call it together, with equally many outcomes; nothing here may wait for the device.

        Args:
            encoder: The encoder after the step.
            outcomes: (predictions, targets) of each part of the batch; one unless gradients are accumulated.
            progress: The share of the training's steps that are completed, above 0 and at most 1: a number, or for a
                task that is `capturable` perhaps a tensor, 0-d float64 on the device.
        """

    def visualize(self, inputs, predictions, targets) -> list[tuple[Tensor, str]]:
        """Returns pictures of what the task sees and predicts.

        Returns:
            ([h, w, 3] uint8 on the CPU, caption) for each image.
        """
        raise NotImplementedError


def _check(task: type[Task]) -> str | None:
    if "Config" in vars(task) and isinstance(task.Config, type) and issubclass(task.Config, TaskConfig):
        return None
    return "it needs a Config of its own, a subclass of ssl_core.task.TaskConfig"


KIND = Kind("task", Task, ssl_core.tasks, "tilespin.tasks", ("make_batch", "forward", "loss", "visualize"), _check)


def tasks() -> dict[str, type[Task]]:
    """Returns every task's class, the built-in ones by the name of their file, then plug-ins.

    Raises:
        UserError: If a plug-in cannot be used, or two tasks are of one name.
    """
    return KIND.find()


def task_name(config: TaskConfig) -> str:
    """Returns the name of the task that `config` belongs to."""
    return next(name for name, task in tasks().items() if task.Config is type(config))


def plugin_digests(config: TaskConfig) -> dict[str, str]:
    """Returns a digest of the source of each plug-in that a task is or consists of, by name; none if it is built in."""
    known = tasks()
    digests = {name: source_digest(known[name]) for name in (task_name(config), *config.parts) if name in known}
    return {name: digest for name, digest in digests.items() if digest is not None}


class PretextModel(nn.Module):
    """The one module that is trained (and wrapped by DDP): an encoder and a task's head."""

    def __init__(self, encoder: nn.Module, task: Task):
        super().__init__()
        self.encoder, self.task = encoder, task
        task.copy_encoder(encoder)

    def forward(self, inputs):
        return self.task(self.encoder, inputs)


def crop_side(crop: float, size: int, multiple: int = 1) -> int:
    """Returns the side in pixels of a random window.

    Args:
        crop: Side of the window as a fraction of the image's.
        size: Side of the image, in pixels.
        multiple: What the side has to be a multiple of, as `size` is: the nearest one is taken, but none of 0.

    Raises:
        UserError: Unless 0 < crop <= 1.
    """
    if not 0 < crop <= 1:
        raise UserError(f"crop is {crop}: expected a fraction of the image's side, above 0 and at most 1")
    return max(1, round(crop * size / multiple)) * multiple


def cover(map: Tensor, stride: int, side: int) -> Tensor:
    """Repeats the last row and column of a map until it covers an image, of whose end some encoders see nothing.

    Encoders without padding, such as DenseNets, leave out what their stride does not divide.

    Args:
        map: [b, c, h, w].
        stride: Of the map, in pixels.
        side: Of the image, in pixels.

    Returns:
        [b, c, h', w'], neither h' nor w' less than side / stride; the map itself if it covers the image.
    """
    for dim in (2, 3):
        missing = -(-side // stride) - map.shape[dim]
        if missing > 0:
            map = torch.cat([map, *[map.narrow(dim, map.shape[dim] - 1, 1)] * missing], dim)
    return map


def crop_corners(words: Tensor, images: Tensor, size: int) -> Tensor:
    """Returns where a window of side `size` starts in each image, uniform over the image.

    Args:
        words: [b, 2] int64, random 32-bit words.
        images: [b, height, width, c].
        size: Side of the window, in pixels.

    Returns:
        [b, 2] int64 (y, x), in pixels.
    """
    free = [side - size + 1 for side in images.shape[1:3]]
    return torch.stack([randint(words[:, i], free[i]) for i in (0, 1)], dim=1)


def to_uint8(images: Tensor) -> Tensor:
    """Returns images of any normalization for people to look at, each stretched to 0..255.

    Args:
        images: [b, c, h, w], c is 1 or 3, any dtype and device.

    Returns:
        [b, h, w, 3] uint8 on the CPU.
    """
    images = images.detach().float().cpu()
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    scaled = (images - low) / (high - low).clamp(min=1e-6) * 255
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).expand(-1, -1, -1, 3).contiguous()
