"""Keeps a teacher: a copy of the encoder and a head that follows the trained ones slowly, as a moving average.

Source: mean teachers (Tarvainen and Valpola 2017, arXiv:1703.01780), with the schedule of BYOL (Grill et al. 2020,
arXiv:2006.07733, section 3.2).
"""

import math
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ssl_core.collectives import Replicated
from ssl_core.errors import UserError


class Teacher(Replicated):
    """Holds a copy of an encoder and a head whose weights are buffers, moved towards the trained ones after each step.

    Its momentum rises from `momentum` to 1 along half a cosine. Every worker makes the same copy and the same updates
    of weights that are equal anyway, so nothing is exchanged. It is a part of the task, and so of its checkpoints, but
    not of the encoder that is exported. Batch norm in it uses the statistics of each batch, as that of a student in
    training does, and keeps none; nothing is dropped in it. Buffers of the encoder are not followed.

    Attributes:
        encoder: The copy of the encoder.
        head: The copy of the head.
        momentum: The share of the teacher's weights that stays at the first step.
    """

    def __init__(self, encoder: nn.Module, head: nn.Module, momentum: float):
        """Copies the encoder and the head.

        Args:
            encoder: [n, 3, h, w] -> list of stages.
            head: [n, width] of the last stage -> [n, d].
            momentum: At least 0 and less than 1.

        Raises:
            UserError: If the momentum cannot work.
        """
        super().__init__()
        if not 0 <= momentum < 1:
            raise UserError(f"--teacher-momentum is {momentum}, expected 0 or more and less than 1")
        self.encoder, self.head, self.momentum = deepcopy(encoder), deepcopy(head), momentum
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.track_running_stats = False
                module.running_mean = module.running_var = module.num_batches_tracked = None
            for name, parameter in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, parameter.detach())

    def train(self, mode: bool = True) -> "Teacher":
        """Sets batch norm alone to training or evaluation: dropped paths would make the student's targets noisy."""
        super().train(False)
        self.training = mode
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.training = mode
        return self

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Returns the head's output for the last stage, averaged over its cells.

        Args:
            images: [n, 3, h, w].

        Returns:
            [n, d], without gradients.
        """
        return self.head(self.encoder(images)[-1].mean((2, 3)))

    @torch.no_grad()
    def update(self, encoder: nn.Module, head: nn.Module, progress: float | Tensor) -> None:
        """Moves the teacher towards the trained weights.

        Args:
            encoder: The trained encoder.
            head: The trained head.
            progress: The share of the training that is completed: the momentum is 1 at the end. A number, or 0-d
                float64 on the device, as `Task.after_step` gets it.
        """
        trained = dict(nn.ModuleDict({"encoder": encoder, "head": head}).named_parameters())
        buffers = dict(self.named_buffers())
        own, new = [buffers[name] for name in trained], [p.detach() for p in trained.values()]
        if isinstance(progress, Tensor):  # whose value torch's function would wait for
            stays = 1 - (1 - self.momentum) * (1 + torch.cos(math.pi * progress)) / 2
            share = (1 - stays).float()
            for old, current in zip(own, new):
                old.lerp_(current, share)
        else:
            stays = 1 - (1 - self.momentum) * (1 + math.cos(math.pi * progress)) / 2
            get_ema_multi_avg_fn(stays)(own, new, 0)
