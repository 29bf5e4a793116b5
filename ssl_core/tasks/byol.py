"""BYOL: predict what a slow teacher makes of an image's other view (Grill et al. 2020, arXiv:2006.07733)."""

from dataclasses import dataclass

from torch import nn
from torch.nn import functional as F

from ssl_core.augmentations import COLOR, CROP, ContrastiveAugmentation, view_pictures
from ssl_core.batch_norm import GlobalBatchNorm1d
from ssl_core.optim import Optim
from ssl_core.task import Task, TaskConfig
from ssl_core.teacher import Teacher


class BYOL(Task):
    """Predicts the teacher's projection of one view of an image from the other view; there are no negatives.

    That all images get the same features, which would solve the task, is kept away by the predictor, which the teacher
    does not have, and by the teacher's slowness. Batch norm's statistics are those of both views of the global batch.
    """

    capturable = True

    @dataclass(frozen=True, kw_only=True)
    class Config(TaskConfig):
        """Predict a slow teacher's features of each image's other view."""

        batch: int = 128
        hidden_dim: int = 512
        """width of the hidden layers of projector and predictor"""
        projection_dim: int = 128
        """width of the features that are predicted"""
        teacher_momentum: float = 0.99
        """share of the teacher's weights that stays at the first step; it rises to 1; the paper's for 300 epochs"""
        views: ContrastiveAugmentation = ContrastiveAugmentation()
        optim: Optim = Optim(optimizer="adamw", lr=3e-3, weight_decay=0.05)

    config: Config
    teacher: Teacher

    def __init__(self, config: Config, encoder, data):
        super().__init__(config, encoder, data)
        self.side = config.views.side(data.size, encoder.patch_size)
        self.projector = _mlp(encoder.widths[-1], config.hidden_dim, config.projection_dim)
        self.predictor = _mlp(config.projection_dim, config.hidden_dim, config.projection_dim)

    def copy_encoder(self, encoder):
        self.teacher = Teacher(encoder, self.projector, self.config.teacher_momentum)

    def make_batch(self, batch, bits, format):
        words = bits.draw("byol", 2 * (CROP + COLOR))
        return self.config.views.view(batch.images, words, self.side, format), ()

    def forward(self, encoder, inputs):
        predicted = self.predictor(self.projector(encoder(inputs)[-1].mean((2, 3))))
        both = (predicted, self.teacher(inputs))
        predicted, wanted = (F.normalize(x.float(), dim=1).unflatten(0, (-1, 2)) for x in both)
        return (predicted * wanted.flip(1)).sum(2)  # [b, 2]: the cosine of each view's prediction

    def loss(self, predictions, targets):
        """Returns the squared distance of the normalized vectors, 2 - 2 cosine, summed over both directions."""
        return (2 - 2 * predictions).sum(1)

    def metrics(self, predictions, targets):
        return {"cosine": predictions.mean(1)}

    def after_step(self, encoder, outcomes, progress):
        self.teacher.update(encoder, self.projector, progress)

    def visualize(self, inputs, predictions, targets):
        return view_pictures(inputs, predictions.mean(1))


def _mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden, bias=False), GlobalBatchNorm1d(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, out)
    )
