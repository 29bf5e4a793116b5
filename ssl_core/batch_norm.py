"""Batch norm over the global batch, whichever workers have its rows, on CPUs and GPUs alike."""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssl_core.collectives import all_reduce_sum_with_grad


class GlobalBatchNorm1d(nn.BatchNorm1d):
    """Normalizes by the mean and variance of all workers' rows, so that any number of workers computes the same.

    It is what torch's SyncBatchNorm, which knows no CPU, is on GPUs. With one worker, and in evaluation, it is
    BatchNorm1d to the bit.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalizes rows; in training all workers must call it together.

        Args:
            input: [n, width] float; n may differ between workers.
        """
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            x = input.float()
            sums = all_reduce_sum_with_grad(torch.cat([x.sum(0), x.new_tensor([len(x)])]))
            count = sums[-1].detach()
            mean = sums[:-1] / count
            variance = all_reduce_sum_with_grad((x - mean).square().sum(0)) / count
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
            if self.running_mean is not None and self.running_var is not None:
                rate = 0.1 if self.momentum is None else self.momentum
                with torch.no_grad():
                    self.running_mean.lerp_(mean, rate)
                    self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), rate)
            scaled = (x - mean) * (variance + self.eps).rsqrt()
            return scaled * self.weight + self.bias if self.affine else scaled


class GlobalBatchNorm2d(GlobalBatchNorm1d):
    """Normalizes maps by the mean and variance of each channel over all cells of all workers' images."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalizes maps; in training all workers must call it together.

        Args:
            input: [n, width, h, w] float; n may differ between workers.
        """
        rows = input.movedim(1, 3)
        return super().forward(rows.flatten(0, 2)).unflatten(0, rows.shape[:3]).movedim(3, 1)
