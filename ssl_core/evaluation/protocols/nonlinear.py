"""Evaluates an encoder by a non-linear probe: classifiers of three layers on the whole maps of every frozen stage.

A classifier is two hidden layers with batch norm and ReLU and a linear one, on a stage's flattened map, which is first
averaged to fewer cells if it has too many numbers. It is trained on "train" by cross-entropy: Nesterov's SGD with
momentum 0.9 and a learning rate that falls in steps, on images moved by up to an eighth of their side (what is moved in
is black) and mirrored or not. All stages' classifiers are trained at once and do not influence each other. The stage
with the highest accuracy on "val" is taken.

Source: the evaluation of RotNet's blocks (Gidaris et al. 2018, arXiv:1803.07728, section 4.1 and table 1). The paper's
own code takes batches of 128, here they are of 512, and has weight decay on biases and norms, too.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels.crop_flip import crop_flip
from kernels.random import randint
from ssl_core.augmentations import BYTES, as_bhwc
from ssl_core.errors import Diverged
from ssl_core.evaluation.finetuning import classify, fit
from ssl_core.evaluation.frozen_encoder import FrozenEncoder, normalize
from ssl_core.evaluation.metrics import label_loss
from ssl_core.evaluation.protocol import Protocol, Result
from ssl_core.optim import Optim
from ssl_core.task import DataInfo, EncoderInfo, PretextModel, Task, TaskConfig
from ssl_core.train import TrainConfig


class NonlinearProbe(Protocol):
    """Trains small convolutional or fully connected classifiers on frozen feature maps."""

    version = 2  # more numbers beside top1
    on = "encoder"
    needs_labels = True
    multilabel = True
    headline, higher_is_better = "top1", True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sets the classifiers' size and how they are trained."""

        epochs: int = 100
        batch: int = 512
        lr: float = 0.1
        weight_decay: float = 5e-4
        lr_milestones: tuple[float, ...] = (0.35, 0.7, 0.85)
        decay: float = 0.2
        hidden: int = 20
        """units of a hidden layer for each class, at most 2,048 in all"""
        inputs: int = 32_768
        """numbers of a flattened map at most: a larger map is averaged to fewer cells"""

    def run(self, model: FrozenEncoder, config: Config, seed: int) -> Result:
        """Trains the classifiers and returns their test accuracies.

        Args:
            model: The encoder with its images. Checkpoints are kept in `model.keep`, if given.
            config: Size and training of the classifiers.
            seed: Decides their initialization, the order of the images, shifts and flips.

        Returns:
            Accuracies, fractions: `top1/stageN` of stage N (counted from 1), `top1` of the stage with the highest
            held-out accuracy, the shallower one of equal ones, with what `Answers.numbers` has beside it; `correct`,
            `predicted` and `chosen` are those of `top1`. Where images have several labels it is `map` in place of
            `top1`.

        Raises:
            Diverged: If training diverges.
        """
        ids = model.parts["train"][1]
        optim = Optim(
            lr=config.lr,
            weight_decay=config.weight_decay,
            warmup=0.0,
            lr_milestones=config.lr_milestones,
            lr_gamma=config.decay,
        )
        plan = TrainConfig(steps=max(1, config.epochs * len(ids) // config.batch), seed=seed, optim=optim)
        probed = fit(_probe(model, config, seed), model, ids, plan, model.keep)
        if probed is None:
            raise Diverged(f"the non-linear probe diverged at the learning rate {config.lr:g}")
        held_out, test = classify(probed, model, "val"), classify(probed, model, "test")
        labels, stages = model.labels["test"], range(len(model.blank_maps()))
        val = [held_out[i].value(model.labels["val"]) for i in stages]
        best = max(stages, key=val.__getitem__)
        numbers = {f"{test.measure}/stage{i + 1}": test[i].value(labels) for i in stages}
        return Result(
            {**numbers, **test[best].numbers(labels)},
            test[best].correct(labels),
            {"stage": best + 1, "val_score": val[best]},
            predicted=test[best].predicted,
            draws=test[best].draws(labels),
        )


class Frozen(nn.Module):
    """Wraps an encoder that is not trained: neither weights nor batch-norm statistics are among the wrapper's own.

    It computes without gradients, and stays in evaluation mode when the wrapper is set to training.
    """

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder_only = (encoder,)  # not a sub-module

    @torch.no_grad()
    def forward(self, x: Tensor) -> list[Tensor]:
        return self.encoder_only[0](x)


class Heads(Task):
    """Classifies images by each stage's map: a classifier of three layers for each stage."""

    def __init__(
        self, config: TaskConfig, encoder: EncoderInfo, data: DataInfo, normalization: str, own: NonlinearProbe.Config
    ):
        """Creates the classifiers at random, by torch's generator.

        Args:
            config: Batch size and optimizer.
            encoder: Its widths are those of the stages' flattened maps, see `flat`.
            data: The number of classes.
            normalization: "dataset" or "image", see `frozen_encoder.normalize`.
            own: The protocol's options.
        """
        super().__init__(config, encoder, data)
        self.under, self.most = normalization, own.inputs
        hidden = min(own.hidden * data.classes, 2048)
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, hidden, bias=False),
                nn.BatchNorm1d(hidden),
                nn.ReLU(inplace=True),
                nn.Linear(hidden, hidden, bias=False),
                nn.BatchNorm1d(hidden),
                nn.ReLU(inplace=True),
                nn.Linear(hidden, data.classes),
            )
            for width in encoder.widths
        )

    def make_batch(self, batch, bits, format):
        images, words = batch.images, bits.draw("shift and flip", 3)
        side, most = images.shape[1], images.shape[1] // 8
        corners = randint(words[:, :2], 2 * most + 1)
        boxes = torch.cat([corners, torch.full_like(corners, side)], 1)
        padded = F.pad(images, (0, 0, most, most, most, most))
        moved = as_bhwc(crop_flip(padded, randint(words[:, 2], 2), boxes, size=side, **BYTES))
        return normalize(moved, self.under, format), batch.labels

    def forward(self, encoder, inputs):
        """Returns the logits of each stage's classifier, [stages, b, classes]."""
        return torch.stack([head(x) for head, x in zip(self.heads, flat(encoder(inputs), self.most))])

    def loss(self, predictions, targets):
        """Returns the sum of the stages' cross-entropies, [b]; none of them changes another's gradient."""
        stages, b, classes = predictions.shape
        every = targets.repeat(stages, *(1 for _ in targets.shape[1:]))
        return label_loss(predictions.flatten(0, 1), every).view(stages, b).sum(0)


def flat(maps: list[Tensor], most: int) -> list[Tensor]:
    """Flattens maps, after averaging those that are too large to fewer cells.

    Args:
        maps: [b, c, h, w] each.
        most: Numbers in a flattened map at most; a map is averaged to a square of as many cells as that allows.

    Returns:
        [b, c * cells] each.
    """
    sides = [max(1, math.isqrt(most // m.shape[1])) for m in maps]
    return [
        (m if m.shape[2] * m.shape[3] <= side**2 else F.adaptive_avg_pool2d(m, side)).flatten(1)
        for m, side in zip(maps, sides)
    ]


def _probe(model: FrozenEncoder, config: NonlinearProbe.Config, seed: int) -> PretextModel:
    """Returns the frozen encoder with new classifiers."""
    info = EncoderInfo("frozen", tuple(x.shape[1] for x in flat(model.blank_maps(), config.inputs)), ())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        data = DataInfo(model.source.size, len(model.source.classes))
        task = Heads(TaskConfig(batch=config.batch), info, data, model.normalization, config)
    return PretextModel(Frozen(model.encoder), task).to(model.device)
