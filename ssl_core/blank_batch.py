"""Makes a batch of black images, to find out by what a task and an encoder do with it."""

import torch

from kernels.random import RandomBits
from ssl_core.data.batch import Batch
from ssl_core.task import InputFormat, PretextModel


def blank_batch(model: PretextModel, size: int, count: int) -> tuple:
    """Returns the inputs and targets that the task makes of black images.

    Args:
        model: Encoder and task, on the device that the images are made on.
        size: The images' side in pixels.
        count: How many images.
    """
    images = torch.zeros(count, size, size, 3, dtype=torch.uint8)
    ids = torch.arange(count)
    batch = Batch(images, ids, torch.zeros_like(ids), torch.ones(count), torch.zeros_like(ids))
    device = next(model.parameters()).device
    batch = Batch(*(t.to(device) for t in batch))
    return model.task.make_batch(batch, RandomBits(batch.ids, batch.epochs, 0), InputFormat((0.0,) * 3, (1.0,) * 3))
