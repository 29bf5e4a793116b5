"""NPID: tell an image from all others (Wu et al. 2018, arXiv:1805.01978), as PIRL with lambda 0."""

from dataclasses import dataclass

from torch import nn
from torch.nn import functional as F

from ssl_core.augmentations import COLOR, CROP, ContrastiveAugmentation
from ssl_core.memory_bank import MemoryBank, MemoryOptions
from ssl_core.optim import Optim
from ssl_core.task import Task, TaskConfig, to_uint8


class NPID(Task):
    """Recognizes each image among all others by its row in a memory bank.

    It compares one view of each image with the rows of that image and of others, by PIRL's loss, and so shows what
    PIRL's transform adds (Misra and van der Maaten 2020, figure 6).
    """

    capturable = True

    @dataclass(frozen=True, kw_only=True)
    class Config(TaskConfig):
        """Tell each image from all others."""

        batch: int = 128
        projection_dim: int = 128
        """width of the features in the memory"""
        memory: MemoryOptions = MemoryOptions()
        views: ContrastiveAugmentation = ContrastiveAugmentation()
        optim: Optim = Optim(optimizer="adamw", lr=3e-4, weight_decay=0.05)  # at 3e-3 it leaves its memory behind

        @property
        def side_by_side(self):
            return self.memory.side_by_side

    config: Config

    def __init__(self, config: Config, encoder, data):
        super().__init__(config, encoder, data)
        self.side = config.views.side(data.size, encoder.patch_size)
        self.memory = MemoryBank(data.images, config.projection_dim, config.memory)
        self.head = nn.Linear(encoder.widths[-1], config.projection_dim)

    def make_batch(self, batch, bits, format):
        words = bits.draw("npid", CROP + COLOR + self.memory.negatives)
        view, chosen = words.split([CROP + COLOR, self.memory.negatives], dim=1)
        image = self.config.views.view(batch.images, view, self.side, format)
        others = self.memory.sample_negatives(chosen, batch.ids)
        return (image, batch.ids, others, batch.weights), (batch.ids, batch.weights)

    def forward(self, encoder, inputs):
        image, ids, others, weights = inputs
        features = F.normalize(self.head(encoder(image)[-1].mean((2, 3))).float(), dim=1)
        return features, self.memory.cosines(features[:, None], ids, others, weights, self.config.batch)

    def loss(self, predictions, targets):
        return self.memory.nce(predictions[1])[:, 0]

    def metrics(self, predictions, targets):
        return {"accuracy": (predictions[1][:, 0].argmax(1) == 0).float()}

    def after_step(self, encoder, outcomes, progress):
        for predictions, (ids, weights) in outcomes:
            self.memory.update(ids, predictions[0].detach(), weights, self.config.batch)

    def visualize(self, inputs, predictions, targets):
        cosines = predictions[1][:, 0]
        ranks = (cosines > cosines[:, :1]).sum(1) + 1
        counts = cosines.isfinite().sum(1)
        captions = [f"own row {c:.2f}, rank {r} of {n}" for c, r, n in zip(cosines[:, 0], ranks, counts)]
        return list(zip(to_uint8(inputs[0]), captions))
