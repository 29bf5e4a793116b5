"""Trains on labeled images by the same loop as pretraining, for `finetune`, `lowshot_finetune` and `nonlinear`."""

import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

import ssl_core.storage.checkpoint as checkpoint
from ssl_core.augmentations import CROP, resized_crop
from ssl_core.data.loaders.select import training_batches
from ssl_core.errors import Diverged
from ssl_core.evaluation.frozen_encoder import FrozenEncoder, normalize
from ssl_core.evaluation.metrics import Answers, Scores, joined, label_loss, predictions
from ssl_core.optim import Optim
from ssl_core.task import DataInfo, EncoderInfo, PretextModel, Task, TaskConfig
from ssl_core.train import TrainConfig, train

CHECKPOINT_EVERY_S = 60.0  # seconds between checkpoints: what a killed job loses


class Classifier(Task):
    """Classifies images by a linear layer on the last stage's map, averaged over its cells.

    It is trained on random resized crops (Szegedy et al. 2015, arXiv:1409.4842), mirrored or not, with cross-entropy,
    in its binary form where images have several labels.
    """

    def __init__(self, config: TaskConfig, encoder: EncoderInfo, data: DataInfo, normalization: str, min_area: float):
        """Creates the linear layer at random, by torch's generator.

        Args:
            config: Batch size and optimizer.
            encoder: Its last width is the layer's input.
            data: The number of classes is the layer's output.
            normalization: "dataset" or "image", see `frozen_encoder.normalize`.
            min_area: Smallest share of an image's area that a crop shows.
        """
        super().__init__(config, encoder, data)
        self.normalization_kind, self.min_area = normalization, min_area
        self.head = nn.Linear(encoder.widths[-1], data.classes)

    def make_batch(self, batch, bits, format):
        return normalize(
            resized_crop(batch.images, bits.draw("resized crop", CROP), batch.images.shape[1], self.min_area),
            self.normalization_kind,
            format,
        ), batch.labels

    def forward(self, encoder, inputs):
        return self.head(encoder(inputs)[-1].mean((2, 3)))

    def loss(self, predictions, targets):
        return label_loss(predictions, targets)


def finetune(
    model: FrozenEncoder,
    ids: np.ndarray,
    *,
    steps: int,
    batch: int,
    optim: Optim,
    min_area: float,
    seed: int,
    keep: Path | None = None,
) -> PretextModel | None:
    """Trains all weights of a copy of an encoder, and a new linear classifier on it, on labeled images.

    Args:
        model: The encoder with its images; it is not changed.
        ids: [n] int64, rows of the source's training images to learn from.
        steps: Optimizer steps.
        batch: Images in a batch.
        optim: Optimizer and schedule.
        min_area: Smallest share of an image's area that a crop shows.
        seed: Decides the classifier's initialization, the order of the images and the crops.
        keep: A folder for checkpoints, see `fit`.

    Returns:
        Encoder and classifier in evaluation mode, or None if training diverged.
    """
    plan = TrainConfig(steps=steps, seed=seed, optim=optim)
    return fit(_new_classifier(model, optim, batch, min_area, seed), model, ids, plan, keep)


def fit(
    module: PretextModel, model: FrozenEncoder, ids: np.ndarray, plan: TrainConfig, keep: Path | None = None
) -> PretextModel | None:
    """Trains a model on some of the training images of a frozen encoder's source.

    With a folder `keep` it saves a checkpoint there every CHECKPOINT_EVERY_S seconds and at the end, and continues from
    the newest one. On a CPU the weights are a function of the seed, whether or not the training was interrupted.

    Args:
        module: Is trained in place; its task's options give the batch size.
        model: Its source, device and pixel format are used; not its encoder.
        ids: [n] int64, rows of the source's training images.
        plan: Steps, seed and optimizer.
        keep: A folder for checkpoints.

    Returns:
        `module` in evaluation mode, or None if training diverged.
    """
    source = replace(model.source, train=model.source.train.subset(ids))
    state = checkpoint.load_newest(keep)[0] if keep else None
    if state and state["step"] == plan.steps:
        module.load_state_dict(state["model"])
        return module.eval()
    rest = range(state["step"] if state else 0, plan.steps)
    _, batches = training_batches(
        source,
        batch=module.task.config.batch,
        steps=rest,
        seed=plan.seed,
        rank=0,
        world=1,
        device=model.device,
        threads=model.threads,
    )
    saved = time.monotonic()
    try:
        for step in train(module, batches, model.format, plan, state):
            if step.number == plan.steps or (keep and time.monotonic() - saved >= CHECKPOINT_EVERY_S):
                snapshot = step.state()  # which looks whether the weights are finite
                if keep:
                    checkpoint.save(keep, snapshot, checkpoint.Keep(last=1))
                saved = time.monotonic()
    except Diverged:
        return None
    return module.eval()


def _new_classifier(model: FrozenEncoder, optim: Optim, batch: int, min_area: float, seed: int) -> PretextModel:
    encoder = deepcopy(model.encoder)
    for norm in encoder.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.momentum = 0.1  # torch's own: statistics follow the weights again
    info = EncoderInfo("tuned", tuple(m.shape[1] for m in model.blank_maps()), ())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        data = DataInfo(model.source.size, len(model.source.classes))
        task = Classifier(TaskConfig(batch=batch, optim=optim), info, data, model.normalization, min_area)
    module, layout = PretextModel(encoder, task), torch.channels_last
    return module.to(model.device, memory_format=layout)  # pyright: ignore[reportCallIssue]  torch lacks an overload


@torch.no_grad()
def classify(tuned: PretextModel, model: FrozenEncoder, split: str) -> Answers | Scores:
    """Classifies each whole image of a split, whose labels are then `model.labels`.

    Args:
        tuned: A trained classifier.
        model: The images of the splits.
        split: "train", "val" or "test".

    Returns:
        The predictions for [n] images, or [stages, n] of a model with a classifier for each stage.

    Raises:
        UserError: If no image of the split can be decoded.
    """
    found = []
    for images, labels in model.images(split):
        found.append(predictions(tuned(normalize(images, model.normalization, model.format)), labels))
    return joined(found)
