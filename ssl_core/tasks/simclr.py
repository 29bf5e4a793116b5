"""SimCLR: find an image's other view among all views of a batch (Chen et al. 2020, arXiv:2002.05709)."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from ssl_core.all_gather import all_gather_with_grad
from ssl_core.augmentations import COLOR, CROP, ContrastiveAugmentation
from ssl_core.errors import UserError
from ssl_core.optim import Optim
from ssl_core.task import Task, TaskConfig, to_uint8


class SimCLR(Task):
    """The reference that needs neither an invented label nor a memory. Its negatives are the views of the other images
    of the global batch, whichever worker has them; with --grad-accumulation, those of its part alone.

    An image that could not be decoded is no negative, and an image is none of its own, when an epoch ends and the next
    begins within a batch.
    """

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

    def __init__(self, config, encoder, data):
        super().__init__(config, encoder, data)
        if not 0 < config.temperature < float("inf"):
            raise UserError(f"simclr: --temperature is {config.temperature}, expected above 0")
        self.side = config.views.side(data.size)
        self.head = nn.Sequential(
            nn.Linear(encoder.widths[-1], config.hidden_dim),
            nn.ReLU(inplace=True),
            nn.Linear(config.hidden_dim, config.projection_dim),
        )

    def make_batch(self, batch, bits, format):
        words = bits.draw("simclr", 2 * (CROP + COLOR)).view(-1, CROP + COLOR)
        images = batch.images.repeat_interleave(2, dim=0)
        return (self.config.views.view(images, words, self.side, format), batch.ids, batch.weights), ()

    def forward(self, encoder, inputs):
        images, ids, weights = inputs
        features = self.head(encoder(images)[-1].mean((2, 3)))
        features = F.normalize(features.float(), dim=1).unflatten(0, (-1, 2))
        return features, self.logits(features, ids, weights)

    def logits(self, features, ids, weights):
        """[b, 2, width] of length 1, [b], [b] -> [b, 2, 1 + 2 * global batch]: each view with its image's other one,
        then with all views; -inf is no negative. In training all workers must call this together."""
        with torch.autocast(features.device.type, enabled=False):
            own = (features, ids, weights)
            every, all_ids, valid = (all_gather_with_grad(t, self.config.batch) for t in own) if self.training else own
            positives = (features[:, 0] * features[:, 1]).sum(1)[:, None, None].expand(-1, 2, 1)
            drop = (ids[:, None] == all_ids) | (valid == 0)
            negatives = torch.einsum("bvd,kwd->bvkw", features, every)
            negatives = negatives.masked_fill(drop[:, None, :, None], -torch.inf).flatten(2)
            return torch.cat([positives, negatives], dim=2) / self.config.temperature

    def loss(self, predictions, targets):
        """NT-Xent: the cross-entropy of finding the other view, the mean of both directions."""
        return -F.log_softmax(predictions[1], dim=2)[:, :, 0].mean(1)

    def metrics(self, predictions, targets):
        return {"accuracy": (predictions[1].argmax(2) == 0).float().mean(1)}

    def visualize(self, inputs, predictions, targets):
        pairs = torch.cat(list(to_uint8(inputs[0]).unflatten(0, (-1, 2)).unbind(1)), dim=2)
        cosines = (predictions[0][:, 0] * predictions[0][:, 1]).sum(1).tolist()
        return [(pair, f"two views, cosine {cosine:.2f}") for pair, cosine in zip(pairs, cosines)]
