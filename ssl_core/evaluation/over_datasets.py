"""Summarizes encoders over several datasets: mean rank and mean gain, with intervals over datasets, seeds, images."""

from dataclasses import dataclass

import numpy as np

from ssl_core.evaluation.statistics import widen_to_mean

DRAWS = 2000
CHUNK = 2_000_000  # numbers that are drawn at a time


@dataclass(frozen=True)
class Summary:
    """Holds one encoder's mean over datasets of one number, with the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


def mean_ranks(correct: list[np.ndarray], draws: int = DRAWS) -> list[Summary]:
    """Ranks encoders by accuracy on each dataset, and returns each one's mean rank over datasets.

    Rank 1 is best; equal accuracies share the mean of their ranks. Mean ranks compare encoders over datasets whose
    accuracies cannot be averaged, since one is easy and another hard. Source: Demsar 2006, "Statistical comparisons of
    classifiers over multiple data sets", section 3.2.2.

    Args:
        correct: For each dataset, [encoders, seeds, test images] bool: whether the answer is right.
        draws: Bootstrap samples, each of datasets, and in each of these of seeds, an encoder's own, and of images, the
            same for all encoders; all with replacement.

    Returns:
        One for each encoder. With one dataset, the interval is over its seeds and images alone.
    """
    samples = [_accuracy_samples(one, draws, number) for number, one in enumerate(correct)]
    return _over_datasets([_ranks(one) for one in samples], [_ranks(_accuracies(one)) for one in correct])


def mean_gains(correct: list[np.ndarray], base: list[np.ndarray], draws: int = DRAWS) -> list[Summary]:
    """Returns each encoder's gain in accuracy over its baseline, as the mean over datasets.

    Args:
        correct: As for `mean_ranks`.
        base: The same of each encoder's baseline, paired by seed and image.
        draws: As for `mean_ranks`.
    """
    gains = [one.astype(np.int8) - other.astype(np.int8) for one, other in zip(correct, base)]
    samples = [_accuracy_samples(one, draws, number) for number, one in enumerate(gains)]
    return _over_datasets(samples, [_accuracies(one) for one in gains])


def _accuracies(values: np.ndarray) -> np.ndarray:
    """Returns the mean over seeds and images, [1, encoders], of [encoders, seeds, images]."""
    return values.mean((1, 2), dtype=np.float64)[None]


def _accuracy_samples(values: np.ndarray, draws: int, number: int) -> np.ndarray:
    """Returns [draws, encoders]: means of [encoders, seeds, images] over drawn seeds and images."""
    encoders, seeds, images = values.shape
    rng, flat = np.random.default_rng(number), values.reshape(encoders * seeds, images).T.astype(np.float64)
    chunks = [
        rng.multinomial(images, np.full(images, 1 / images), size=len(part)) @ flat / images
        for part in np.array_split(np.arange(draws), max(1, draws * images // CHUNK))
    ]
    by_seed = np.concatenate(chunks).reshape(draws, encoders, seeds)
    chosen = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=(draws, encoders)) / seeds
    return (by_seed * chosen).sum(2)


def _ranks(accuracies: np.ndarray) -> np.ndarray:
    """Returns the ranks of [draws, encoders] within each draw; 1 for the largest."""
    mine, others = accuracies[:, :, None], accuracies[:, None, :]
    return 0.5 + (others > mine).sum(2) + 0.5 * (others == mine).sum(2)


def _over_datasets(samples: list[np.ndarray], values: list[np.ndarray]) -> list[Summary]:
    """Returns the means over datasets of `values`, [1, encoders] each, with intervals from [draws, encoders] each."""
    count, draws = len(samples), len(samples[0])
    rng = np.random.default_rng(count)
    chosen = rng.multinomial(count, np.full(count, 1 / count), size=draws) / count  # [draws, datasets]
    means = np.einsum("bd,dbe->be", chosen, np.stack(samples))
    ends = np.quantile(means, (0.025, 0.975), axis=0)
    whole = np.mean([one[0] for one in values], axis=0)
    return [
        Summary(float(mean), *widen_to_mean(float(mean), float(low), float(high)))
        for mean, low, high in zip(whole, *ends)
    ]
