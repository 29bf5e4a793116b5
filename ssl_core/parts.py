"""Checks that every part of a batch has enough images for a task, before anything is trained."""

from collections.abc import Iterable

import torch

from ssl_core.blank_batch import blank_batch
from ssl_core.errors import UserError
from ssl_core.task import PretextModel, TaskConfig, task_name


def check_parts(config: TaskConfig, grad_accumulation: int, worlds: Iterable[int], images: int) -> int:
    """Checks that every part of a batch has enough images for the task, whatever the number of workers.

    A part of two may still hold one image twice, as one epoch ends and the next begins.

    Args:
        config: The task's options, with the size of a global batch.
        grad_accumulation: Parts that a worker's slice is computed in.
        worlds: Numbers of workers that may share the batches.
        images: The number of training images.

    Returns:
        The fewest images that a worker would compute with at once.

    Raises:
        UserError: If a worker would get no image, or a task that compares the images of a part with each other would
            find fewer than it needs.
    """
    name, batch, needed, fewest = task_name(config), config.batch, config.side_by_side, config.batch
    if images < needed:
        raise UserError(f"{name} compares training images with each other: expected at least {needed}, got {images}")
    for world in worlds:
        if batch < world:
            raise UserError(f"a global batch of {batch} images cannot be shared by {world} workers")
        alone, together = smallest_part(batch, grad_accumulation, world)
        if together < needed:
            on = f" on {world} workers" if world > 1 else ""
            raise UserError(
                f"{name} compares the images of a part of a batch with each other: expected at least {needed}, and "
                f"--batch {batch} with --grad-accumulation {grad_accumulation}{on} leaves {together}: give a larger "
                "--batch" + (" or a smaller --grad-accumulation" if grad_accumulation > 1 else "")
            )
        fewest = min(fewest, alone)
    return fewest


def smallest_part(batch: int, grad_accumulation: int, world: int) -> tuple[int, int]:
    """Returns the number of images in the smallest part of a global batch that `train` makes.

    Args:
        batch: Images in a global batch.
        grad_accumulation: Parts that a worker's slice is computed in.
        world: Workers that share the batch.

    Returns:
        One worker's images in such a part, and those of all workers together.
    """
    size, larger = divmod(batch, world)  # so many workers have one image more
    parts = max(1, min(grad_accumulation, size))
    return size // parts, (world - larger) * (size // parts) + larger * ((size + 1) // parts)


def check_one_image(model: PretextModel, size: int) -> None:
    """Checks that a model can be trained on parts of a single image.

    Batch norm cannot if its last map has one cell: a single value for a channel has no variance. The check changes the
    statistics of batch norm.

    Args:
        model: Encoder and task; it is left in training mode.
        size: The images' side in pixels.

    Raises:
        UserError: If batch norm would get a single value for a channel.
    """
    inputs = blank_batch(model, size, 1)[0]
    try:
        with torch.no_grad():
            model.train()(inputs)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            f"{task_name(model.task.config)}: a part of a batch may be one image, and batch norm needs more than the "
            "one cell that its last map has: give a larger --batch or --size, a smaller --grad-accumulation or fewer "
            "--workers"
        ) from error
