"""Training on labelled images by the same loop as pretraining: what `finetune`, `lowshot_finetune` and `nonlinear`
share."""

import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ssl_core.storage.checkpoint as checkpoint
from ssl_core.augmentations import CROP, resized_crop
from ssl_core.data.dataset import subset
from ssl_core.data.loaders.select import training_batches
from ssl_core.errors import Diverged
from ssl_core.evaluation.frozen_encoder import Model, normalise
from ssl_core.optim import Optim
from ssl_core.task import DataInfo, EncoderInfo, Pretext, Task, TaskConfig
from ssl_core.train import Plan, train

SAVE = 60.0  # seconds between checkpoints: what a killed job loses


class Classifier(Task):
    """A linear head on the last stage's pooled map, trained on random resized crops, mirrored or not."""

    def __init__(self, config: TaskConfig, encoder: EncoderInfo, data: DataInfo, normalisation: str, least: float):
        super().__init__(config, encoder, data)
        self.under, self.least = normalisation, least
        self.head = nn.Linear(encoder.widths[-1], data.classes)

    def make(self, batch, draw, format):
        return normalise(
            resized_crop(batch.images, draw.words("resized crop", CROP), batch.images.shape[1], self.least),
            self.under,
            format,
        ), batch.labels

    def forward(self, encoder, inputs):
        return self.head(encoder(inputs)[-1].mean((2, 3)))

    def loss(self, predictions, targets):
        return F.cross_entropy(predictions.float(), targets, reduction="none")


def tune(
    model: Model,
    ids: np.ndarray,
    *,
    steps: int,
    batch: int,
    optim: Optim,
    least: float,
    seed: int,
    keep: Path | None = None,
) -> Pretext | None:
    """A copy of `model`'s encoder and a head, all their weights trained as `fit` does -> both, or None if that
    diverged. `least` is the smallest share of an image's area that a crop shows."""
    plan = Plan(steps=steps, seed=seed, optim=optim)
    return fit(_fresh(model, optim, batch, least, seed), model, ids, plan, keep)


def fit(module: Pretext, model: Model, ids: np.ndarray, plan: Plan, keep: Path | None = None) -> Pretext | None:
    """Trains `module` in place on batches of `model`'s training images `ids` -> the same, ready to be asked, or None if
    that diverged.

    With a folder `keep` it leaves a checkpoint there each SAVE seconds and at the end, and continues from the newest.
    On a CPU the weights are a function of the seed, interrupted or not.
    """
    source = replace(model.source, train=subset(model.source.train, ids))
    state = checkpoint.newest(keep)[0] if keep else None
    if state and state["step"] == plan.steps:
        module.load_state_dict(state["model"])
        return module.eval()
    rest = range(state["step"] if state else 0, plan.steps)
    place = dict(rank=0, world=1, device=model.device, threads=model.threads)
    _, batches = training_batches(source, batch=module.task.config.batch, steps=rest, seed=plan.seed, **place)
    saved = time.monotonic()
    try:
        for step in train(module, batches, model.format, plan, state):
            if step.number == plan.steps or (keep and time.monotonic() - saved >= SAVE):
                now = step.state()  # which looks whether the weights are finite
                if keep:
                    checkpoint.save(keep, now, checkpoint.Keep(last=1))
                saved = time.monotonic()
    except Diverged:
        return None
    return module.eval()


def _fresh(model: Model, optim: Optim, batch: int, least: float, seed: int) -> Pretext:
    encoder = deepcopy(model.encoder)
    for norm in encoder.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.momentum = 0.1  # torch's own: statistics follow the weights again
    info = EncoderInfo("tuned", tuple(m.shape[1] for m in model.blank()), ())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        data = DataInfo(model.source.size, model.classes)
        task = Classifier(TaskConfig(batch=batch, optim=optim), info, data, model.normalisation, least)
    return Pretext(encoder, task).to(model.device, memory_format=torch.channels_last)


@torch.no_grad()
def right(tuned: Pretext, model: Model, split: str) -> np.ndarray:
    """[n] bool: whether each whole image of the split is classified rightly; [stages, n] where each stage is."""
    found: list[Tensor] = []
    for images, labels in model.images(split):
        found.append(tuned(normalise(images, model.normalisation, model.format)).argmax(-1) == labels)
    return torch.cat(found, dim=-1).cpu().numpy()
