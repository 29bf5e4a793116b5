"""Shows nearest neighbors as a picture for people, and measures how often they have the label of the query.

Queries are test images, neighbors are sought in a bank of training images, both evenly spaced. Features are the last
stage's map averaged to POOL x POOL cells and flattened, standardized by the bank's statistics and compared by cosine
similarity. Precision at k is the share of the k nearest neighbors that have the query's label, averaged over queries.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from ssl_core.evaluation.features import standardize
from ssl_core.evaluation.frozen_encoder import POOL, FrozenEncoder, evenly_spaced
from ssl_core.evaluation.neighbors import nearest_neighbors, too_few_note
from ssl_core.evaluation.protocol import Protocol, Result
from ssl_core.evaluation.thumbnails import thumbnails

SIDE, EDGE, GAP = 64, 3, 14  # pixels of the sheet: an image, its border, between a query and its neighbors
RIGHT, WRONG, WHITE = (47, 158, 100), (208, 59, 59), (255, 255, 255)


class Retrieval(Protocol):
    """Looks for the training images that are nearest to a test image."""

    version = 1
    on = "encoder"
    needs_labels = False
    headline, higher_is_better = "precision@8", True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sets the sizes of the sheet, the bank and the set of queries."""

        shown: int = 8
        """queries on the sheet, one a row"""
        neighbors: int = 8
        bank: int = 2000
        """training images among which neighbors are looked for, evenly spaced"""
        queries: int = 500
        """test images that the numbers are of, evenly spaced; those on the sheet are evenly spaced among them"""

    def run(self, model: FrozenEncoder, config: Config, seed: int) -> Result:
        """Finds the neighbors of some test images and draws a sheet of them.

        Args:
            model: The encoder with its images; labels are not needed.
            config: Numbers of queries, neighbors and training images.
            seed: Is not used: nothing is random.

        Returns:
            `similarity@K`, the mean cosine similarity of the K neighbors, and `precision@K`, a fraction, if there are
            labels; `sheet`, see `contact_sheet`.
        """
        x, y, asked = _evenly_spaced_images(model, "test", config.queries)
        bank, labels, kept = _evenly_spaced_images(model, "train", config.bank)
        mean, std = standardize(bank)
        found = list(nearest_neighbors((x - mean) / std, (bank - mean) / std, config.neighbors))
        near = torch.cat([rows for _, _, rows in found]).numpy()
        k, alike = config.neighbors, labels[near] == y[:, None]
        numbers = {f"similarity@{k}": float(torch.cat([cosines for _, cosines, _ in found]).mean())}
        if model.classes:
            numbers[f"precision@{k}"] = float(alike.mean())
        shown = evenly_spaced(len(x), config.shown)
        image = contact_sheet(asked[shown], kept[near[shown]], alike[shown] if model.classes else None)
        return Result(numbers, sheet=image, notes=too_few_note(len(bank), [k]))


def _evenly_spaced_images(model: FrozenEncoder, split: str, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns features [n, d] float32, labels [n] int64 and small pictures [n, s, s, 3] uint8 of a split."""
    rows = [
        (model.pool(images, POOL)[-1], labels, thumbnails(images, SIDE)) for images, labels in model.images(split, most)
    ]
    features, labels, pictures = (torch.cat(part).cpu().numpy() for part in zip(*rows))
    return features, labels, pictures


def contact_sheet(queries: np.ndarray, near: np.ndarray, alike: np.ndarray | None) -> np.ndarray:
    """Draws a row for each query: its image first, then its neighbors, nearest first.

    Args:
        queries: [n, s, s, 3] uint8.
        near: [n, k, s, s, 3] uint8.
        alike: [n, k] bool: whether a neighbor has the query's label. Borders are green where it does and red where not;
            None draws no borders.

    Returns:
        [h, w, 3] uint8, each image enlarged to SIDE pixels.
    """
    tile = SIDE + 2 * EDGE
    whole = np.full((len(queries) * tile, tile * (near.shape[1] + 1) + GAP, 3), WHITE, np.uint8)
    for i, query in enumerate(queries):
        for j, image in enumerate([query, *near[i]]):
            y, x = i * tile, j * tile + (GAP if j else 0)
            if j and alike is not None:
                whole[y : y + tile, x : x + tile] = RIGHT if alike[i, j - 1] else WRONG
            large = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            whole[y + EDGE : y + EDGE + SIDE, x + EDGE : x + EDGE + SIDE] = np.asarray(large)
    return whole
