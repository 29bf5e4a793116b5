"""Predicts colors as a distribution over the bins of the ab plane, where rare colors count more, and shows them.

Source: Zhang, Isola and Efros 2016, arXiv:1603.08511, section 2.
"""

import torch
from torch import Tensor

from kernels.lab import bin_centers
from kernels.lab.tables import WEIGHTS
from ssl_core.collectives import Replicated, all_reduce_sum

SHARED = 5  # nearest bins that a soft target is spread over
TEMPERATURE = 0.38  # of the annealed mean, the paper's


class ColorBins(Replicated):
    """Counts the colors of training images, and weighs the loss of each color by how rare it is.

    Every worker adds the same counts, which are whole numbers, so that weights are the same for any number of workers,
    also when training continues with another number.

    Attributes:
        counts: [bins] int64, a buffer and so a part of every checkpoint: the cells of each color that were seen.
        centers: [bins, 2] float32, a* and b* of each bin.
        rebalance: The share of the uniform distribution that is mixed in, lambda in the paper.
    """

    counts: Tensor
    centers: Tensor
    neighbors: Tensor
    shares: Tensor
    smoothing: Tensor

    def __init__(self, rebalance: float, sigma: float):
        """Computes the Gaussian of the soft targets and of the smoothing.

        Args:
            rebalance: Above 0 and at most 1, where all colors count alike.
            sigma: Of the Gaussian, above 0, in units of a* and b*.
        """
        super().__init__()
        self.rebalance = rebalance
        centers = bin_centers()
        squared = (centers[:, None] - centers).double().square().sum(2)
        gaussian = (-squared / (2 * sigma**2)).exp()
        nearest = squared.argsort(dim=1, stable=True)[:, :SHARED]
        near = gaussian.gather(1, nearest)
        self.register_buffer("counts", torch.zeros(len(centers), dtype=torch.int64))
        self.register_buffer("centers", centers, persistent=False)
        self.register_buffer("neighbors", nearest, persistent=False)
        self.register_buffer("shares", (near / near.sum(1, keepdim=True)).float(), persistent=False)
        self.register_buffer("smoothing", (gaussian / gaussian.sum(0)).float(), persistent=False)

    def weights(self) -> Tensor:
        """Returns how much each color counts in the loss: [bins] float32, of mean 1 over the smoothed distribution.

        It is 1 / ((1 - rebalance) * p + rebalance / bins), scaled, where p is the share of each color in what was
        counted, smoothed by a Gaussian; all are 1 before anything was.
        """
        total = self.counts.sum()
        smoothed = self.smoothing @ (self.counts / total.clamp(min=1))
        weights = 1 / ((1 - self.rebalance) * smoothed + self.rebalance / len(smoothed))
        return torch.where(total > 0, weights / (smoothed * weights).sum(), 1.0)

    def cross_entropy(self, logits: Tensor, bins: Tensor) -> Tensor:
        """Returns the weighted cross-entropy with soft targets, which are never written out over all bins.

        A target is spread over the five bins nearest to it, itself included, by a Gaussian of their distance.

        Args:
            logits: [b, bins, h, w] float32.
            bins: [b, h, w] int64.

        Returns:
            [b, h, w] float32.
        """
        near = logits.gather(1, self.neighbors[bins].movedim(3, 1))
        wanted = (self.shares[bins].movedim(3, 1) * near).sum(1)
        return self.weights()[bins] * (logits.logsumexp(1) - wanted)

    @torch.no_grad()
    def count(self, bins: Tensor, weights: Tensor) -> None:
        """Counts the colors of a batch; all workers must call this together.

        Args:
            bins: [b, h, w] int64, this worker's.
            weights: [b], 0 for an image that does not count.
        """
        valid = (weights > 0).long()[:, None, None].expand_as(bins)
        own = torch.zeros_like(self.counts).index_add_(0, bins.flatten(), valid.flatten())
        self.counts += all_reduce_sum(own)

    def mean_colors(self, logits: Tensor) -> Tensor:
        """Returns a* and b*, [b, 2, h, w], of each cell: the paper's annealed mean, between the mean and the mode.

        Args:
            logits: [b, bins, h, w].
        """
        return torch.einsum("bqhw,qc->bchw", (logits.float() / TEMPERATURE).softmax(1), self.centers)


def lab_to_srgb(lab: Tensor) -> Tensor:
    """Returns colors of CIELAB for the white D65 as sRGB, those that it does not have cut off in linear light.

    Args:
        lab: [..., 3], L* in 0..100, a* and b*.

    Returns:
        [..., 3] uint8.
    """
    lightness, a, b = lab.double().unbind(-1)
    y = (lightness + 16) / 116
    f = torch.stack([y + a / 500, y, y - b / 200], -1)
    t = torch.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    from_xyz = torch.linalg.inv(torch.tensor(WEIGHTS, dtype=t.dtype, device=t.device))
    light = (t @ from_xyz.T).clamp(0, 1)
    v = torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (v * 255).round().to(torch.uint8)
