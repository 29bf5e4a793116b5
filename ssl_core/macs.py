"""Counts what an encoder computes for an image, the budget in which tasks are made equal."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ssl_core.blank_batch import blank_batch
from ssl_core.errors import UserError
from ssl_core.task import PretextModel, task_name
from ssl_core.teacher import Teacher


def encoder_macs(model: PretextModel, size: int) -> int:
    """Counts an encoder's multiply-accumulates, forward and backward, for one image with all views that its task makes.

    This is the budget in which tasks are made equal. A backward pass is counted as two forward passes; a teacher has
    none. Tokens that are dropped before the encoder cost nothing.

    Args:
        model: Encoder and task; its mode, training or evaluation, is restored.
        size: The images' side in pixels.

    Raises:
        UserError: If the encoder cannot take what the task shows it, such as images of other sides.
    """
    check_views(model, size)
    count = 2
    inputs = blank_batch(model, size, count)[0]
    encoder = _Counted(model.encoder)
    teachers = [(one, one.encoder) for one in model.task.modules() if isinstance(one, Teacher)]
    counted = {teacher: _Counted(own) for teacher, own in teachers}
    was = model.training
    model.eval()
    trained = [p for p in model.parameters() if p.requires_grad]
    try:
        with torch.no_grad():
            for parameter in trained:  # torch's counter hooks what needs a gradient, also where none is computed
                parameter.requires_grad_(False)
            for teacher, _ in teachers:
                teacher.encoder = counted[teacher]
            model.task(encoder, inputs)
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for teacher, own in teachers:
            teacher.encoder = own
        model.train(was)
    return (3 * encoder.flops + sum(one.flops for one in counted.values())) // 2 // count


@torch.no_grad()
def check_views(model: PretextModel, size: int) -> None:
    """Checks that the encoder can take what the task shows it.

    Args:
        model: Encoder and task; its mode, training or evaluation, is restored.
        size: The images' side in pixels.

    Raises:
        UserError: If it cannot, such as an encoder that is built for one size alone.
    """
    inputs, was = blank_batch(model, size, 2)[0], model.training
    try:
        model.eval()(inputs)
    except (AssertionError, RuntimeError) as error:
        raise UserError(
            f"{task_name(model.task.config)} on images of {size} px: the encoder cannot take what the task shows it, "
            f"choose another one: {str(error).splitlines()[0]}"
        ) from error
    finally:
        model.train(was)


class _Counted(nn.Module):
    """Counts the floating-point operations of an encoder."""

    def __init__(self, encoder: Any):
        super().__init__()
        self.encoder: Any = encoder
        self.flops = 0

    def forward(self, images: Tensor) -> list[Tensor]:
        return self._count(self.encoder, images)

    def tokens(self, images: Tensor, keep: Tensor | None = None, placed: Tensor | None = None) -> Tensor:
        return self._count(self.encoder.tokens, images, keep, placed)

    def _count(self, function: Callable, *given):
        counter = FlopCounterMode(display=False)
        with counter:
            result = function(*given)
        self.flops += counter.get_total_flops()
        return result
