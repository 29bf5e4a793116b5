"""Evaluates an encoder by fine-tuning on few labels: 1 % and 10 % of them, and K images of each class.

The few images are drawn from "train" and "val" together, several times. On each draw a copy of the encoder and a new
linear classifier are trained as in `finetune`, for a fixed number of steps, without weight decay, at one learning rate,
which nothing chooses: a held-out set would be more labels than there are.

Source: the semi-supervised protocol of PIRL (arXiv:1912.01991, section 4.2) and SimCLR (arXiv:2002.05709, appendix
B.5). They train for a number of epochs, which would be very few batches of few images.
"""

from dataclasses import dataclass

import numpy as np

from ssl_core.evaluation.few_labels import LabelSubset, mean_accuracies, sample_subsets, skipped_note
from ssl_core.evaluation.finetuning import classify, finetune
from ssl_core.evaluation.frozen_encoder import FrozenEncoder
from ssl_core.evaluation.protocol import Protocol, Result
from ssl_core.optim import Optim


class LowShotFineTuning(Protocol):
    """Trains all of the encoder's weights with few labels."""

    version = 3  # more numbers beside accuracies
    on = "encoder"
    needs_labels = True
    headline, higher_is_better = "finetune/10%", True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sets the numbers of labels and how the copies of the encoder are trained.

        Percentages are of the labeled images that a probe may use, held-out ones included.
        """

        subsets: LabelSubset = LabelSubset()
        learning_rate: float = 0.03
        steps: int = 500
        batch: int = 64
        min_area: float = 0.2
        """smallest share of an image's area that a crop shows"""

    def run(self, model: FrozenEncoder, config: Config, seed: int) -> Result:
        """Fine-tunes the encoder on each draw of few images and returns the test accuracies.

        Args:
            model: The encoder with its images; it is not changed. Checkpoints are kept in `model.keep`, if given.
            config: Numbers of labels, draws and how to train.
            seed: Decides the draws, the classifier's initialization, the order of the images and the crops.

        Returns:
            Accuracies, fractions: `finetune/1%`, `finetune/10%`, `finetune/k5` and `finetune/k20`, the means over
            draws, `finetune/1%/std` and so on, their sample standard deviations, and `finetune/1%/balanced` and so
            on, the means of balanced accuracies. A training that diverges counts as 0. Notes name the sizes that there
            are too few images for.
        """
        pool = np.concatenate([model.parts["train"][1], model.parts["val"][1]])
        labels, numbers = model.source.train.labels[pool], {}
        for name, draws in sample_subsets(labels, config.subsets, seed).items():
            found: list[np.ndarray | None] = []
            for i, rows in enumerate(draws):
                tuned = finetune(
                    model,
                    pool[rows],
                    steps=config.steps,
                    batch=config.batch,
                    optim=Optim(lr=config.learning_rate, weight_decay=0.0, warmup=0.0),
                    min_area=config.min_area,
                    seed=seed,
                    keep=model.keep / f"{name}-{i}" if model.keep else None,
                )
                found.append(classify(tuned, model, "test").predicted if tuned else None)
            numbers |= mean_accuracies(f"finetune/{name}", found, model.labels["test"])
        return Result(numbers, notes=skipped_note(labels, config.subsets))
