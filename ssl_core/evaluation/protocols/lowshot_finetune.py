"""Fine-tuning on few labels: all weights, 1 % and 10 % of the labels and K images of each class, several draws of each.

As the semi-supervised protocol of PIRL (arXiv:1912.01991, section 4.2) and SimCLR (arXiv:2002.05709, B.5): no weight
decay, one learning rate, chosen by nothing, since a held-out set would be more labels than there are. A fixed number of
batches takes the place of their epochs, of which few images make few batches.
"""

from dataclasses import dataclass

import numpy as np

from ssl_core.evaluation.features import Result
from ssl_core.evaluation.few_labels import LabelSubset, mean_and_std, sample_subsets, skipped_note
from ssl_core.evaluation.finetuning import classify_correctly, finetune
from ssl_core.evaluation.frozen_encoder import FrozenEncoder
from ssl_core.optim import Optim

version = 2  # crops are those of pretraining
on = "encoder"
labels = True
headline, higher = "finetune/10%", True


@dataclass(frozen=True, kw_only=True)
class Config:
    """Percentages are of the labeled images that a probe may use, held-out ones included."""

    subsets: LabelSubset = LabelSubset()
    learning_rate: float = 0.03
    steps: int = 500
    batch: int = 64
    min_area: float = 0.2
    """smallest share of an image's area that a crop shows"""


def run(model: FrozenEncoder, config: Config, seed: int) -> Result:
    """`finetune/1%`, `finetune/10%`, `finetune/k5`, `finetune/k20` are test accuracies, fractions, the means over
    draws; `finetune/1%/std` and so on their standard deviations. A training that diverged counts as 0. Checkpoints are
    kept in `model.keep`."""
    pool = np.concatenate([model.parts["train"][1], model.parts["val"][1]])
    labels, numbers = model.source.train.labels[pool], {}
    for name, draws in sample_subsets(labels, config.subsets, seed).items():
        accuracies = []
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
            accuracies.append(float(classify_correctly(tuned, model, "test").mean()) if tuned else 0.0)
        numbers |= mean_and_std(f"finetune/{name}", accuracies)
    return Result(numbers, notes=skipped_note(labels, config.subsets))
