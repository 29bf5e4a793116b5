"""Fits linear regression with an L2 penalty in closed form, for many penalties and targets from one decomposition."""

from dataclasses import dataclass

import torch
from torch import Tensor

SHARES = tuple(10.0**i for i in range(-4, 4))  # penalties, in mean eigenvalues of the features' scatter
SMALLEST = 1e-6  # share of the largest eigenvalue below which a direction is float32's rounding


@dataclass(frozen=True)
class Fit:
    """Holds a regression in the directions of a `RidgePath`.

    Attributes:
        weights: [r, m].
        intercept: [m].
        penalty: The penalty that was chosen: the `alpha` of scikit-learn's Ridge.
    """

    weights: Tensor
    intercept: Tensor
    penalty: float

    def predict(self, scores: Tensor) -> Tensor:
        """Returns predictions, [n, m], for features that `RidgePath.project` has turned into scores, [n, r]."""
        return self.intercept + scores @ self.weights


class RidgePath:
    """Decomposes features once, after which a regression costs two products of matrices, whatever its penalty.

    Each is the optimum of scikit-learn's Ridge: the summed squared error plus `penalty` times the squared weights, with
    an intercept that is not penalized. Source: Hoerl and Kennard 1970, doi:10.1080/00401706.1970.10488634.
    """

    def __init__(self, x: Tensor):
        """Finds the directions in which the features vary.

        Args:
            x: [n, d] float32; directions are found from n x n or d x d products, whichever are fewer.
        """
        self.mean = x.mean(0)
        centered = x - self.mean
        wide = len(x) <= x.shape[1]
        values, vectors = torch.linalg.eigh((centered @ centered.T if wide else centered.T @ centered).double())
        kept = values > SMALLEST * values[-1].clamp(min=1e-30)
        self.values, vectors = values[kept].float(), vectors[:, kept].float()
        self.directions = centered.T @ (vectors * self.values.rsqrt()) if wide else vectors
        self.scores = self.project(x)

    def project(self, x: Tensor) -> Tensor:
        """Returns the features, [n, d], along the directions, [n, r]."""
        return (x - self.mean) @ self.directions

    def fit(self, y: Tensor, held_out: Tensor, y_held_out: Tensor) -> Fit:
        """Fits the regression of `y` with each penalty and returns the one with the least error on held-out images.

        Args:
            y: [n, m] float32, of the features that were decomposed.
            held_out: [k, r] float32, scores of held-out images, see `project`.
            y_held_out: [k, m] float32, of these.
        """
        intercept = y.mean(0)
        products = self.scores.T @ (y - intercept)
        mean_value = float(self.values.mean()) if len(self.values) else 1.0
        fits = []
        for share in SHARES:
            penalty = share * mean_value
            fit = Fit(products / (self.values + penalty)[:, None], intercept, penalty)
            fits.append((float((fit.predict(held_out) - y_held_out).square().mean()), fit))
        return min(fits, key=lambda one: one[0])[1]


def r_squared(predicted: Tensor, y: Tensor) -> float | None:
    """Returns the coefficient of determination, the mean over targets of 1 - squared error / variance.

    Args:
        predicted: [n, m].
        y: [n, m].

    Returns:
        At most 1, 0 for predicting the mean of `y`, and negative for worse; None if a target does not vary.
    """
    scatter = (y - y.mean(0)).square().sum(0)
    if float(scatter.min()) <= 0:
        return None
    return float((1 - (predicted - y).square().sum(0) / scatter).mean())
