"""Chooses the labeled images that a low-shot protocol may learn from."""

from dataclasses import dataclass

import numpy as np

from ssl_core.evaluation.metrics import class_accuracies


@dataclass(frozen=True, kw_only=True)
class LabelSubset:
    """Sets how many labels a low-shot protocol has: shares of all, and numbers of images of each class.

    Source: shares of 1 % and 10 % are those of SimCLR (Chen et al. 2020, arXiv:2002.05709) for ImageNet.
    """

    percents: tuple[float, ...] = (1, 10)
    """of each class's labeled training images, one at least"""
    per_class: tuple[int, ...] = (5, 20)
    """left out where a class has fewer"""
    draws: int = 3
    """random choices of the images; means and standard deviations are over these"""


def sample_subsets(labels: np.ndarray, subsets: LabelSubset, seed: int) -> dict[str, list[np.ndarray]]:
    """Draws the sets of labeled images that a low-shot protocol learns from.

    A percentage is of each class's images, rounded, at least one image. The larger sets of a draw contain its smaller
    ones, so that a comparison of two sizes is not blurred by which images they have.

    Args:
        labels: [n] int64, of the images to choose from.
        subsets: Sizes and number of draws. Numbers of images per class that the rarest class does not have are left
            out.
        seed: Decides the draws.

    Returns:
        By size, "1%", "10%", "k5", "k20": for each draw the chosen rows of `labels`, [m] int64.
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
    """Returns a note on the numbers of images per class that `sample_subsets` leaves out.

    Args:
        labels: [n] int64, of the images to choose from.
        subsets: The sizes asked for.

    Returns:
        One sentence, or nothing if no size is left out.
    """
    rarest = int(np.unique(labels, return_counts=True)[1].min())
    more = [f"k{k}" for k in subsets.per_class if k > rarest]
    if not more:
        return ()
    return (f"no {' and no '.join(more)}: the rarest class has too few images to learn from ({rarest})",)


def mean_accuracies(name: str, draws: list[np.ndarray | None], labels: np.ndarray) -> dict[str, float]:
    """Returns what the answers of classifiers come to that learned from different draws of the same size.

    Args:
        name: The measure's name.
        draws: [n] int64, the answers of each; None for a training that diverged, which counts as 0.
        labels: [n] int64.

    Returns:
        `name`, the mean accuracy over draws; `name`/std, the sample standard deviation over draws, 0 for a single one;
        `name`/balanced, the mean balanced accuracy.
    """
    top1 = [0.0 if one is None else float((one == labels).mean()) for one in draws]
    balanced = [0.0 if one is None else float(class_accuracies(one, labels).mean()) for one in draws]
    deviation = float(np.std(top1, ddof=1)) if len(top1) > 1 else 0.0
    return {name: float(np.mean(top1)), f"{name}/std": deviation, f"{name}/balanced": float(np.mean(balanced))}
