"""SimCLR: find an image's other view among all views of a batch (Chen et al. 2020, arXiv:2002.05709)."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from ssl_core.augmentations import COLOR, CROP, ContrastiveAugmentation, view_pictures
from ssl_core.collectives import all_gather_with_grad
from ssl_core.errors import UserError
from ssl_core.optim import Optim
from ssl_core.task import Task, TaskConfig


class SimCLR(Task):
    """Recognizes an image's other view among the views of a whole batch.

    The negatives of an image are the views of the other images of the global batch, whichever worker has them; with
    --grad-accumulation, those of its part alone. An image that could not be decoded is no negative. An image that is
    in a batch twice, because an epoch ends and the next begins there, is not its own negative.
    """

    capturable = True

    @dataclass(frozen=True, kw_only=True)
    class Config(TaskConfig):
        """Find each image's other view among those of a batch."""

        side_by_side = 2
        batch: int = 128
        temperature: float = 0.5
        """that cosines are divided by; the paper's best on CIFAR-10 (appendix B.9)"""
        hidden_dim: int = 512
        """width of the projection head's hidden layer"""
        projection_dim: int = 128
        """width of the features that are compared"""
        views: ContrastiveAugmentation = ContrastiveAugmentation()
        optim: Optim = Optim(optimizer="adamw", lr=3e-3, weight_decay=0.05)

    config: Config

    def __init__(self, config: Config, encoder, data):
        super().__init__(config, encoder, data)
        if not 0 < config.temperature < float("inf"):
            raise UserError(f"simclr: --temperature is {config.temperature}, expected above 0")
        self.side = config.views.side(data.size, encoder.patch_size)
        self.head = nn.Sequential(
            nn.Linear(encoder.widths[-1], config.hidden_dim),
            nn.ReLU(inplace=True),
            nn.Linear(config.hidden_dim, config.projection_dim),
        )

    def make_batch(self, batch, bits, format):
        words = bits.draw("simclr", 2 * (CROP + COLOR))
        return (self.config.views.view(batch.images, words, self.side, format), batch.ids, batch.weights), ()

    def forward(self, encoder, inputs):
        images, ids, weights = inputs
        features = self.head(encoder(images)[-1].mean((2, 3)))
        features = F.normalize(features.float(), dim=1).unflatten(0, (-1, 2))
        return features, self.logits(features, ids, weights)

    def logits(self, features, ids, weights):
        """Returns the cosines of each view with all views of the global batch, divided by the temperature.

        In training all workers must call this together.

        Args:
            features: [b, 2, width] float, of length 1.
            ids: [b] int64.
            weights: [b] float32; an image of weight 0 is no negative.

        Returns:
            [b, 2, 1 + 2 * global batch] float32: first with the image's other view, then with all views; -inf where a
            view is no negative.
        """
        with torch.autocast(features.device.type, enabled=False):
            own = (features, ids, weights)
            every, all_ids, valid = (all_gather_with_grad(t, self.config.batch) for t in own) if self.training else own
            positives = (features[:, 0] * features[:, 1]).sum(1)[:, None, None].expand(-1, 2, 1)
            drop = (ids[:, None] == all_ids) | (valid == 0)
            negatives = torch.einsum("bvd,kwd->bvkw", features, every)
            negatives = negatives.masked_fill(drop[:, None, :, None], -torch.inf).flatten(2)
            return torch.cat([positives, negatives], dim=2) / self.config.temperature

    def loss(self, predictions, targets):
        """Returns NT-Xent: the cross-entropy of finding the other view, the mean of both directions."""
        return -F.log_softmax(predictions[1], dim=2)[:, :, 0].mean(1)

    def metrics(self, predictions, targets):
        return {"accuracy": (predictions[1].argmax(2) == 0).float().mean(1)}

    def visualize(self, inputs, predictions, targets):
        return view_pictures(inputs[0], (predictions[0][:, 0] * predictions[0][:, 1]).sum(1))
