"""VICReg: make views alike while features vary and do not repeat each other (Bardes et al. 2022, arXiv:2105.04906)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_core.augmentations import COLOR, CROP, ContrastiveAugmentation, view_pictures
from ssl_core.batch_norm import GlobalBatchNorm1d
from ssl_core.collectives import all_gather_with_grad
from ssl_core.errors import UserError
from ssl_core.optim import Optim
from ssl_core.task import Task, TaskConfig

EPSILON = 1e-4  # added to the variance under its square root, as in the paper


class VICReg(Task):
    """Pulls an image's two views together, and keeps features from collapsing by their variance and covariance.

    Both are those of the global batch, whichever worker has an image; with --grad-accumulation, of its part alone. An
    image that could not be decoded has no part in these two terms, and one that has no others teaches nothing, since
    its views are made alike by collapsing. Neither negatives nor a teacher are needed.
    """

    capturable = True

    @dataclass(frozen=True, kw_only=True)
    class Config(TaskConfig):
        """Make views alike while features vary and do not repeat each other."""

        side_by_side = 2
        batch: int = 128
        invariance: float = 25.0
        """weight of the mean squared distance of an image's views"""
        variance: float = 25.0
        """weight of how much the features' standard deviations lack to 1"""
        covariance: float = 1.0
        """weight of the squared covariances of different features"""
        projection_dim: int = 512
        """width of the three layers of the projector, the expander of the paper"""
        views: ContrastiveAugmentation = ContrastiveAugmentation()
        optim: Optim = Optim(optimizer="adamw", lr=3e-3, weight_decay=0.05)

    config: Config

    def __init__(self, config: Config, encoder, data):
        super().__init__(config, encoder, data)
        for name in ("invariance", "variance", "covariance"):
            if not 0 <= (weight := getattr(config, name)) < float("inf"):
                raise UserError(f"vicreg: --{name} is {weight}, expected 0 or more")
        self.side = config.views.side(data.size, encoder.patch_size)
        width = config.projection_dim
        self.projector = nn.Sequential(
            nn.Linear(encoder.widths[-1], width, bias=False),
            GlobalBatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Linear(width, width, bias=False),
            GlobalBatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Linear(width, width),
        )

    def make_batch(self, batch, bits, format):
        words = bits.draw("vicreg", 2 * (CROP + COLOR))
        return (self.config.views.view(batch.images, words, self.side, format), batch.weights), ()

    def forward(self, encoder, inputs):
        images, weights = inputs
        features = self.projector(encoder(images)[-1].mean((2, 3))).float().unflatten(0, (-1, 2))
        with torch.autocast(images.device.type, enabled=False):
            every, counts = features, weights
            if self.training:
                every, counts = (all_gather_with_grad(t, self.config.batch) for t in (features, weights))
            counted = (counts > 0).float()
            return features, *spread(every, counted), (counted.sum() > 1).float()

    def loss(self, predictions, targets):
        features, variance, covariance, others = predictions
        apart = (features[:, 0] - features[:, 1]).square().mean(1)
        return others * (
            self.config.invariance * apart + self.config.variance * variance + self.config.covariance * covariance
        )

    def metrics(self, predictions, targets):
        features, variance, covariance, _ = predictions
        ones = torch.ones_like(features[:, 0, 0])
        cosine = F.cosine_similarity(features[:, 0], features[:, 1], dim=1)
        return {"cosine": cosine, "variance": variance * ones, "covariance": covariance * ones}

    def visualize(self, inputs, predictions, targets):
        features = predictions[0]
        return view_pictures(inputs[0], F.cosine_similarity(features[:, 0], features[:, 1], dim=1))


def spread(features: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Returns VICReg's two terms against collapse (equations 1 to 4 of the paper).

    Args:
        features: [n, 2, d] float32, two views of each image.
        counts: [n] float32, 1 for an image that counts and 0 for one that does not.

    Returns:
        0-d tensors: the mean over features of how much their standard deviation lacks to 1, averaged over both views;
        and the sum over pairs of different features of their squared covariance, divided by d, for both views together.
    """
    n, d = counts.sum(), features.shape[2]
    others = (n - 1).clamp(min=1)
    mask = counts[:, None, None]
    centered = (features - (features * mask).sum(0) / n.clamp(min=1)) * mask
    std = (centered.square().sum(0) / others + EPSILON).sqrt()  # [2, d]
    covariances = torch.einsum("nvi,nvj->vij", centered, centered) / others
    off_diagonal = covariances.square().sum() - covariances.diagonal(dim1=1, dim2=2).square().sum()
    return F.relu(1 - std).mean(), off_diagonal / d
