"""Evaluates an encoder by fine-tuning: all its weights are trained on the labels, from where pretraining left them.

For each learning rate a copy of the encoder gets a new linear classifier on the last stage's map, averaged over its
cells, and both are trained on "train" by cross-entropy: Nesterov's SGD with momentum 0.9 and a cosine schedule to zero
without warm-up, on random resized crops, mirrored or not. The learning rate with the highest accuracy on "val" is
taken. Images are evaluated whole.

Source: Kornblith et al. 2019 (arXiv:1805.08974) and SimCLR (arXiv:2002.05709, appendix B.8.1), which train for 20,000
batches of 256; here it is for 30 epochs.
"""

from dataclasses import dataclass

from ssl_core.errors import Diverged
from ssl_core.evaluation.finetuning import classify, finetune
from ssl_core.evaluation.frozen_encoder import FrozenEncoder
from ssl_core.evaluation.protocol import Protocol, Result
from ssl_core.optim import Optim
from ssl_core.task import PretextModel


class FineTuning(Protocol):
    """Trains all of the encoder's weights with a new linear classifier."""

    version = 3  # more numbers beside top1
    on = "encoder"
    needs_labels = True
    multilabel = True
    headline, higher_is_better = "top1", True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sets how the copies of the encoder are trained."""

        learning_rates: tuple[float, ...] = (0.01, 0.03, 0.1)
        epochs: int = 30
        batch: int = 128
        weight_decay: float = 1e-4
        min_area: float = 0.2
        """smallest share of an image's area that a crop shows"""

    def run(self, model: FrozenEncoder, config: Config, seed: int) -> Result:
        """Fine-tunes the encoder at each learning rate and returns the test accuracy of the best one.

        Args:
            model: The encoder with its images; it is not changed. Checkpoints are kept in `model.keep`, if given.
            config: How to train.
            seed: Decides the classifier's initialization, the order of the images and the crops.

        Returns:
            `top1`, the test accuracy, a fraction, at the learning rate with the highest held-out accuracy, with what
            `Answers.numbers` has beside it; where images have several labels it is `map`.

        Raises:
            Diverged: If training diverges at every learning rate.
        """
        ids = model.parts["train"][1]
        best: PretextModel | None = None
        best_val, chosen = -1.0, {}
        for rate in config.learning_rates:
            tuned = finetune(
                model,
                ids,
                steps=max(1, config.epochs * len(ids) // config.batch),
                batch=config.batch,
                optim=Optim(lr=rate, weight_decay=config.weight_decay, warmup=0.0),
                min_area=config.min_area,
                seed=seed,
                keep=model.keep / f"{rate:g}" if model.keep else None,
            )
            if tuned is None:
                continue
            val = classify(tuned, model, "val").value(model.labels["val"])
            if val > best_val:
                best, best_val, chosen = tuned, val, {"learning_rate": rate, "val_score": val}
        if best is None:
            raise Diverged(f"fine-tuning diverged at every learning rate of {config.learning_rates}")
        of = classify(best, model, "test")
        labels = model.labels["test"]
        return Result(of.numbers(labels), of.correct(labels), chosen, predicted=of.predicted, draws=of.draws(labels))
