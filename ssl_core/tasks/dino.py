"""DINO: agree with a slow teacher that sees more of the image (Caron et al. 2021, arXiv:2104.14294)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_core.augmentations import COLOR, CROP, ContrastiveAugmentation, RandomCrops, resized_crops
from ssl_core.collectives import Replicated, all_reduce_sum
from ssl_core.errors import UserError
from ssl_core.optim import Optim
from ssl_core.task import Task, TaskConfig, crop_side, to_uint8
from ssl_core.teacher import Teacher

CENTER_MOMENTUM = 0.9  # the paper's


class DINO(Task):
    """Predicts a teacher's soft assignment of an image to prototypes, from the image's other crops.

    The teacher sees two large crops, the student these and several small ones; it learns to say of each what the
    teacher says of the others. That everything is assigned alike is kept away by centering the teacher's outputs, that
    all prototypes are as likely by sharpening them.
    """

    capturable = True

    @dataclass(frozen=True, kw_only=True)
    class Config(TaskConfig):
        """Agree with a slow teacher that sees more of the image."""

        batch: int = 128
        local_crops: int = 6
        """small crops of each image, which only the student sees"""
        local_crop: float = 0.43
        """side that a small crop is resized to, as a fraction of the image's; the paper's is 96 of 224"""
        local_min_area: float = 0.05
        """smallest share of the image that a small crop shows; its largest is --min-area, a large one's smallest"""
        hidden_dim: int = 512
        """width of the hidden layers of the head"""
        projection_dim: int = 128
        """width of the features that are compared with the prototypes"""
        prototypes: int = 1024
        """number of prototypes"""
        student_temperature: float = 0.1
        """that the student's outputs are divided by"""
        teacher_temperature: float = 0.04
        """that the teacher's outputs are divided by"""
        teacher_momentum: float = 0.99
        """share of the teacher's weights that stays at the first step; it rises to 1"""
        views: ContrastiveAugmentation = ContrastiveAugmentation(crop=1.0, min_area=0.4)
        optim: Optim = Optim(optimizer="adamw", lr=1e-3, weight_decay=0.05, clip_grad_norm=3.0)

    config: Config
    teacher: Teacher

    def __init__(self, config: Config, encoder, data):
        super().__init__(config, encoder, data)
        if min(config.student_temperature, config.teacher_temperature) <= 0:
            raise UserError("dino: --student-temperature and --teacher-temperature: expected above 0")
        least = config.views.min_area
        if not 0 < config.local_min_area < least <= 1 or config.local_crops < 0:
            raise UserError(
                f"dino: --local-min-area {config.local_min_area}, --min-area {least} and --local-crops "
                f"{config.local_crops}: expected 0 < local-min-area < min-area <= 1 and 0 or more crops"
            )
        self.side = config.views.side(data.size, encoder.patch_size)
        self.local_side = crop_side(config.local_crop, data.size, encoder.patch_size)
        self.head = Head(encoder.widths[-1], config.hidden_dim, config.projection_dim, config.prototypes)
        self.center = Center(config.prototypes)

    def copy_encoder(self, encoder):
        self.teacher = Teacher(encoder, self.head, self.config.teacher_momentum)

    def make_batch(self, batch, bits, format):
        local, views = self.config.local_crops, self.config.views
        words = bits.draw("dino", (2 + local) * (CROP + COLOR)).view(-1, 2 + local, CROP + COLOR)
        large = RandomCrops(self.side, views.min_area, count=2)
        small = RandomCrops(self.local_side, self.config.local_min_area, views.min_area, count=local)
        crops = resized_crops(batch.images, words[..., :CROP], (large, small))
        colors = (part.flatten(0, 1) for part in words[..., CROP:].split([2, local], dim=1))
        return tuple(views.color(shown, part, format) for shown, part in zip(crops, colors)), batch.weights

    def forward(self, encoder, inputs):
        large, small = inputs
        count = len(large) // 2
        # large and small crops are of two sizes; the head sees all of an image's crops together
        seen = [encoder(crops)[-1].mean((2, 3)).unflatten(0, (count, -1)) for crops in (large, small) if len(crops)]
        student = self.head(torch.cat(seen, dim=1))  # [b, 2 + local, prototypes]
        return student.float(), self.teacher(large).float().unflatten(0, (count, 2))

    def loss(self, predictions, targets):
        """Returns the divergence of the student's assignment from the teacher's, the mean over pairs of crops.

        A pair is a crop of the teacher's and another one of the student's. Divergence is the paper's cross-entropy less
        the entropy of the teacher's assignment: gradients are the same, and 0 means agreement. Near 0 with the metric
        `entropy` near log(prototypes), or near 0, too, everything is assigned alike.
        """
        student, teacher = predictions
        wanted = self._assignments(teacher)
        logs = F.log_softmax(student / self.config.student_temperature, dim=2)
        pairs = _entropy(wanted)[:, :, None].neg() - torch.einsum("btk,bsk->bts", wanted, logs)
        same = torch.eye(2, student.shape[1], dtype=torch.bool, device=pairs.device)
        return pairs.masked_fill(same, 0.0).sum((1, 2)) / (2 * student.shape[1] - 2)

    def _assignments(self, teacher: Tensor) -> Tensor:
        """Returns the teacher's probabilities of the prototypes, [b, 2, prototypes], of its centered outputs."""
        return F.softmax((teacher - self.center.mean) / self.config.teacher_temperature, dim=2)

    def metrics(self, predictions, targets):
        """Returns the entropy of the teacher's assignments in nats, and whether its two crops have the same first."""
        wanted = self._assignments(predictions[1])
        first = wanted.argmax(2)
        return {
            "entropy": _entropy(wanted).mean(1),
            "agreement": (first[:, 0] == first[:, 1]).float(),
        }

    def after_step(self, encoder, outcomes, progress):
        outputs = torch.cat([predictions[1].mean(1) for predictions, _ in outcomes])
        self.center.update(outputs, torch.cat([weights for _, weights in outcomes]))
        self.teacher.update(encoder, self.head, progress)

    def visualize(self, inputs, predictions, targets):
        first = predictions[0].argmax(2)
        strips = []  # of each size of crops, one image's in a row, small ones at the bottom filled up with white
        for crops in (crops for crops in inputs if len(crops)):
            shown = F.pad(to_uint8(crops), (0, 0, 0, 2, 0, self.side - crops.shape[2]), value=255)
            strips.append(shown.unflatten(0, (len(first), -1)).transpose(1, 2).flatten(2, 3))
        pictures = torch.cat(strips, dim=2)
        return [(image, f"prototypes {' '.join(map(str, of))}") for image, of in zip(pictures, first.tolist())]


def _entropy(shares: Tensor) -> Tensor:
    """Returns the entropy in nats of [..., n] probabilities: [...]."""
    return -torch.xlogy(shares, shares).sum(-1)


class Head(nn.Module):
    """Compares features with prototypes: three layers, and the cosine with each prototype.

    Args:
        width: Of the encoder's features.
        hidden: Width of the hidden layers.
        projection: Width of the features that are compared.
        prototypes: Their number.
    """

    def __init__(self, width: int, hidden: int, projection: int, prototypes: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, projection)
        )
        self.prototypes = nn.Linear(projection, prototypes, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Returns [..., prototypes], cosines."""
        features = F.normalize(self.layers(features), dim=-1)
        return F.linear(features, F.normalize(self.prototypes.weight, dim=1))


class Center(Replicated):
    """Keeps the moving average of the teacher's outputs over global batches.

    Attributes:
        mean: [prototypes] float32, a buffer.
    """

    mean: Tensor

    def __init__(self, prototypes: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(prototypes))

    @torch.no_grad()
    def update(self, outputs: Tensor, weights: Tensor) -> None:
        """Moves the center towards the mean of a global batch; all workers must call this together.

        Args:
            outputs: [b, prototypes] float32, this worker's.
            weights: [b], 0 for an image that does not count.
        """
        counts = (weights > 0).float()
        sums = all_reduce_sum(torch.cat([counts @ outputs, counts.sum()[None]]))
        now = sums[:-1] / sums[-1].clamp(min=1)
        self.mean.lerp_(now, (1 - CENTER_MOMENTUM) * (sums[-1] > 0))
