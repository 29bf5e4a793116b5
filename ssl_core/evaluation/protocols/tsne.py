"""Draws a map of test images in two dimensions, on which images lie together whose features do.

Features are the last stage's map averaged to POOL x POOL cells and flattened, standardized by their statistics over
these images, compared by cosine similarity, and mapped to two dimensions by t-SNE (van der Maaten and Hinton 2008).
What lies together on the map is alike; distances between groups, and their sizes, mean little.
"""

from dataclasses import dataclass

import numpy as np
import torch

from ssl_core.evaluation.features import standardize
from ssl_core.evaluation.frozen_encoder import POOL, FrozenEncoder
from ssl_core.evaluation.protocol import MapPoint, Protocol, Result
from ssl_core.evaluation.thumbnails import thumbnails

TILE = 32  # pixels of an image on the sheet, at most
FEWEST = 4  # images of which t-SNE can make a map


class TSNE(Protocol):
    """Draws a map of test images by their features."""

    version = 1
    on = "encoder"
    needs_labels = False
    headline, higher_is_better = "trustworthiness", True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sets how many images are on the map, and how far t-SNE looks."""

        images: int = 484
        """test images at most, evenly spaced"""
        perplexity: float = 30
        """about how many neighbors count; less where there are fewer than three times as many images"""
        neighbors: int = 10
        """nearest neighbors on the map that trustworthiness is of"""

    def run(self, model: FrozenEncoder, config: Config, seed: int) -> Result:
        """Makes the map, and a picture of the images in a grid, each as near as possible to its place on the map.

        Args:
            model: The encoder with its images; labels are not needed.
            config: Numbers of images and neighbors.
            seed: Decides what is random in t-SNE.

        Returns:
            `trustworthiness`, how far neighbors on the map are neighbors by their features (Venna and Kaski 2001): 1 if
            all are, about 0.5 by chance; `points`, the map; `sheet`, the grid. Of fewer than FEWEST images, and of
            features that are all alike, there is no map, and a note says so.
        """
        from sklearn import manifold  # takes a second, which help need not wait for

        rows = [
            (model.pool(images, POOL)[-1], labels, thumbnails(images, TILE))
            for images, labels in model.images("test", config.images)
        ]
        x, labels, pictures = (torch.cat(part).cpu().numpy() for part in zip(*rows))
        if len(x) < FEWEST:
            return Result({}, notes=(f"a map needs {FEWEST} test images",))
        mean, std = standardize(x)
        x = (x - mean) / std
        if float(np.abs(x).max()) < 1e-6:
            return Result({}, notes=("a map needs features that differ: these are all alike",))
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        perplexity = min(config.perplexity, (len(x) - 1) / 3)
        # of unit vectors, Euclidean distances are in the order of cosines
        tsne = manifold.TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
        places = _to_unit_square(tsne.fit_transform(x))
        near = min(config.neighbors, (len(x) - 1) // 2)
        numbers = {"trustworthiness": float(manifold.trustworthiness(x, places, n_neighbors=near))}
        cells, across = grid(places)
        one_label = labels if labels.ndim == 1 else np.full(len(labels), -1)
        points = tuple(
            MapPoint(round(float(px), 4), round(float(py), 4), int(label), int(cell))
            for (px, py), label, cell in zip(places, one_label, cells)
        )
        return Result(numbers, points=points, sheet=_sheet(pictures, cells, across))


def _to_unit_square(places: np.ndarray) -> np.ndarray:
    """Returns places, [n, 2], moved and made smaller, both axes alike, so that all lie between 0 and 1."""
    low, high = places.min(0), places.max(0)
    return (places - (low + high) / 2) / max(float((high - low).max()), 1e-12) + 0.5


def grid(places: np.ndarray) -> tuple[np.ndarray, int]:
    """Gives each image a cell of a square grid, so that the squared distances from places to cells are least in sum.

    Args:
        places: [n, 2], x to the right and y up, from 0 to 1.

    Returns:
        The cells, [n] int64, counted row by row from the top; and how many there are in a row.
    """
    from scipy.optimize import linear_sum_assignment  # takes half a second

    across = int(np.ceil(np.sqrt(len(places))))
    line = (np.arange(across) + 0.5) / across
    centers = np.stack([np.tile(line, across), 1 - line.repeat(across)], 1)
    distances = np.square(places[:, None] - centers[None]).sum(2)
    return linear_sum_assignment(distances)[1], across


def _sheet(pictures: np.ndarray, cells: np.ndarray, across: int) -> np.ndarray:
    """Returns the pictures, [n, s, s, 3] uint8, in their cells, [across * s, across * s, 3]; empty cells are gray."""
    side = pictures.shape[1]
    whole = np.full((across * across, side, side, 3), 128, np.uint8)
    whole[cells] = pictures
    return whole.reshape(across, across, side, side, 3).swapaxes(1, 2).reshape(across * side, across * side, 3)
