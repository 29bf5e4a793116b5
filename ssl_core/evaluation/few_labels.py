"""Few labels: which images a low-shot protocol may learn from."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class LabelSubset:
    """As ImageNet's 1 % and 10 % (Chen et al. 2020, arXiv:2002.05709) and K images of each class."""

    percents: tuple[float, ...] = (1, 10)
    """of each class's labeled training images, one at least"""
    per_class: tuple[int, ...] = (5, 20)
    """left out where a class has fewer"""
    draws: int = 3
    """random choices of the images; means and standard deviations are over these"""


def sample_subsets(labels: np.ndarray, subsets: LabelSubset, seed: int) -> dict[str, list[np.ndarray]]:
    """labels [n] int64 -> {"1%", "10%", "k5", "k20": for each draw the rows [m] int64}, every class by its share.

    A draw's larger sets contain its smaller ones, so that what more labels bring is not blurred by which they are.
    """
    kinds, counts = np.unique(labels, return_counts=True)
    wanted = {f"{p:g}%": np.maximum(1, np.rint(counts * p / 100)).astype(int) for p in subsets.percents}
    wanted |= {f"k{k}": np.full(len(kinds), k) for k in subsets.per_class if k <= counts.min()}
    found: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    for draw in range(subsets.draws):
        order = np.random.default_rng((seed, draw)).permutation(len(labels))
        rows = [order[labels[order] == kind] for kind in kinds]
        for name, numbers in wanted.items():
            found[name].append(np.concatenate([row[:number] for row, number in zip(rows, numbers)]))
    return found


def skipped_note(labels: np.ndarray, subsets: LabelSubset) -> tuple[str, ...]:
    """A note for the numbers of images of each class that `sample_subsets` leaves out."""
    rarest = int(np.unique(labels, return_counts=True)[1].min())
    more = [f"k{k}" for k in subsets.per_class if k > rarest]
    if not more:
        return ()
    return (f"no {' and no '.join(more)}: the rarest class has too few images to learn from ({rarest})",)


def mean_and_std(name: str, accuracies: list[float]) -> dict[str, float]:
    """The mean over draws under `name`, their standard deviation under `name`/std, 0 for a single one."""
    deviation = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0
    return {name: float(np.mean(accuracies)), f"{name}/std": deviation}
