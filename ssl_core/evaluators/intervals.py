"""95 % intervals for accuracies and for their differences on the same test images."""

import numpy as np

Z = 1.959964  # the normal distribution's 97.5 % quantile


def wilson(correct: np.ndarray) -> tuple[float, float]:
    """[n] bool -> (low, high) for the share of True (Wilson 1927): honest near 0 and 1 too."""
    n, p = len(correct), float(correct.mean())
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * (p * (1 - p) / n + Z**2 / (4 * n**2)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def paired(better: np.ndarray, base: np.ndarray) -> tuple[float, float, float]:
    """Two [n] bool on the same images -> (difference of the shares, low, high), normal approximation.

    Pairing cancels what makes an image easy for both. It speaks of test images, not of training seeds.
    """
    difference = better.astype(np.float64) - base.astype(np.float64)
    mean, half = difference.mean(), Z * difference.std(ddof=1) / len(difference) ** 0.5
    return float(mean), float(mean - half), float(mean + half)
