"""Holds a frozen encoder and the images that it is evaluated on, and splits a dataset for evaluation.

A probe learns from "train", choices are made on "val", numbers are of "test". The first two are parts of the source's
training images, the third is its test images.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels.rotate import rotate
from kernels.shuffle_tiles import shuffle_tiles
from ssl_core.data.dataset import Source
from ssl_core.data.loaders.select import evaluation_batches
from ssl_core.data.sampler import make_sampler
from ssl_core.encoders.small import RawPixels
from ssl_core.errors import Diverged, UserError
from ssl_core.task import InputFormat

POOL = 2  # every stage's map is averaged to POOL x POOL cells and flattened; one of fewer cells stays as it is
CALIBRATION_IMAGES = 2000  # unlabeled training images that batch norm's statistics are re-estimated on
SPLITS = ("train", "val", "test")
DESCRIPTIONS = {
    "train": "training images that a probe learns from",
    "val": "held-out training images",
    "test": "test images",
}


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Sets which labeled images a probe learns from; the test images are all of the source's test part."""

    num_labels: int = 12_000
    """labeled training images that a probe may use, held-out ones included; 0 for all"""
    val_fraction: float = 1 / 6
    """share of them that chooses stage and learning rate; test data chooses nothing"""


def make_splits(source: Source, splits: Splits, seed: int) -> tuple[np.ndarray, dict[str, tuple[str, np.ndarray]]]:
    """Splits the images of a dataset into those that a probe learns from, held-out ones and test images.

    Training images are put in a random order; the first of those with labels are taken, at most `splits.num_labels`, of
    which the first `splits.val_fraction`, at least one, are held out. Where the source has no labels, all training
    images count as usable; if it has no test part either, half of those taken are test images.

    Args:
        source: The dataset.
        splits: Number of images and share of held-out ones.
        seed: Decides the order.

    Returns:
        All training ids in that order, [n] int64; and by split, "train", "val" and "test", the part of the source that
        it is from, "train" or "test", and its rows there, [m] int64.

    Raises:
        UserError: If fewer than two images to learn from or no test image would be left.
    """
    shuffled = make_sampler(source.train, seed).at(np.arange(len(source.train)))[0]
    usable = shuffled[source.train.labeled[shuffled]] if source.classes else shuffled
    usable, test = usable[: splits.num_labels or None], ("test", np.arange(len(source.test)))
    if not source.classes and not len(source.test):
        test, usable = ("train", usable[: len(usable) // 2]), usable[len(usable) // 2 :]
    num_val = max(1, round(len(usable) * splits.val_fraction))
    if len(usable) - num_val < 2 or not len(test[1]):
        labeled = "labeled " if source.classes else ""
        raise UserError(
            f"{source.name} has {len(usable)} {labeled}training images and {len(test[1])} test "
            "images: too few to evaluate an encoder by"
        )
    return shuffled, {"train": ("train", usable[num_val:]), "val": ("train", usable[:num_val]), "test": test}


def evenly_spaced(n: int, most: int) -> np.ndarray:
    """Returns `most` of the rows 0 to n - 1, evenly spaced, or all of them: [min(n, most)] int64."""
    return np.arange(min(n, most)) * n // max(1, min(n, most))


def normalize(images: Tensor, normalization: str, format: InputFormat) -> Tensor:
    """Converts whole images to an encoder's input.

    Args:
        images: [b, s, s, 3] uint8.
        normalization: "dataset": by the mean and standard deviation of `format`; "image": by each image's own.
        format: The wanted statistics, dtype and memory layout.

    Returns:
        [b, 3, s, s] of the format's dtype.
    """
    b, size = images.shape[:2]
    zeros = torch.zeros(b, dtype=torch.int64, device=images.device)
    pairs = zeros[:, None].expand(b, 2)
    if normalization == "dataset":
        return rotate(images, zeros, zeros, pairs, size=size, **format.options())
    one, shifts = zeros[:, None], zeros[:, None, None].expand(b, 3, 2)
    return shuffle_tiles(images, one, pairs[:, None], shifts, zeros, tile=size, standardize=True, **format.options())


class FrozenEncoder:
    """Holds a frozen encoder with the images of each split, and computes its maps.

    Statistics of batch norm are first re-estimated as averages over whole training images: those of pretraining are of
    crops, tiles or images with holes.

    Attributes:
        encoder: The encoder on the device, in evaluation mode. It and the other arguments keep their names.
        format: The encoder's pixel format.
        parts: By split, the part of the source and rows there, see `make_splits`.
        labels: By split, [n] int64, -1 where there are none: of all images of the split, and once these have been read
            completely, of those that can be decoded.
    """

    @torch.no_grad()
    def __init__(
        self,
        encoder: nn.Module,
        source: Source,
        normalization: str,
        splits: Splits,
        seed: int,
        device: torch.device,
        threads: int,
        keep: Path | None = None,
    ):
        """Splits the dataset, moves the encoder to the device and re-estimates its batch-norm statistics in place.

        Args:
            encoder: Maps [b, 3, h, w] to the list of its stages' maps.
            source: The dataset.
            normalization: "dataset" or "image", as in pretraining.
            splits: Which labeled images are used.
            seed: Decides the splits.
            device: Where to compute.
            threads: Threads that decode images.
            keep: A folder where a protocol that takes long may keep checkpoints.

        Raises:
            UserError: If there are too few images, or fewer than two of those for batch norm can be decoded.
            Diverged: If the encoder's features are not finite.
        """
        layout = torch.channels_last
        self.encoder = encoder.to(device, memory_format=layout)  # pyright: ignore[reportCallIssue]  torch lacks an overload
        self.source, self.normalization, self.splits, self.seed = source, normalization, splits, seed
        self.device, self.threads, self.keep = device, threads, keep
        self.format = InputFormat(source.mean, source.std)
        shuffled, self.parts = make_splits(source, splits, seed)
        # [n] int64 by split, -1 where there are none: of all its images, and once they are read of those that can be
        self.labels = {split: getattr(source, part).labels[ids] for split, (part, ids) in self.parts.items()}
        self._recalibrate_batch_norm(shuffled[:CALIBRATION_IMAGES])

    @property
    def classes(self) -> int:
        """Returns the number of classes; 0 where there are no labels, or images have several."""
        return 0 if self.source.multilabel else len(self.source.classes)

    def images(self, split: str, most: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Reads whole images of a split in order; those that cannot be decoded are left out.

        Args:
            split: "train", "val" or "test".
            most: Read only so many, evenly spaced, since test images may be sorted by class.

        Yields:
            Batches: images, [b, size, size, 3] uint8, and labels, [b] int64, -1 where there are none; both on the
                device.

        Raises:
            UserError: If none of the images can be decoded.
        """
        for images, labels, _ in self.rows(split, most):
            yield images, labels

    def rows(self, split: str, most: int | None = None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yields what `images` says, and each image's row in its part of the source, [b] int64."""
        part, ids = self.parts[split]
        ids, read = ids if most is None else ids[evenly_spaced(len(ids), most)], []
        for images, labels, rows in self._batches(part, ids):
            read.append(labels)
            yield images, labels, rows
        if not read:
            raise UserError(f"{self.source.name}: none of the {len(ids):,} {DESCRIPTIONS[split]} can be decoded")
        if most is None:
            self.labels[split] = torch.cat(read).cpu().numpy()

    def numbered_images(self, split: str, most: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Reads the same images as `images`, each with a number that its random numbers can be drawn by.

        Args:
            split: "train", "val" or "test".
            most: Images at most, evenly spaced.

        Yields:
            Batches: images, [b, size, size, 3] uint8, and numbers from 0 on, [b] int64; both on the device.

        Raises:
            UserError: If none of the images can be decoded.
        """
        first = 0
        for images, _ in self.images(split, most):
            yield images, torch.arange(first, first + len(images), device=self.device)
            first += len(images)

    def feature_maps(self, images: Tensor, dense: bool = False) -> list[Tensor]:
        """Computes the map of each stage, without gradients.

        Args:
            images: [b, s, s, 3] uint8 on the device; they are normalized here.
            dense: Of raw pixels, return all and not a few cells.

        Returns:
            For each stage, shallow to deep: [b, width, h, w] float32.

        Raises:
            Diverged: If a map is not finite.
        """
        with torch.no_grad():
            encode = self.encoder.pixel_maps if dense and isinstance(self.encoder, RawPixels) else self.encoder
            maps = encode(normalize(images, self.normalization, self.format))
        if not all(map.sum().isfinite() for map in maps):  # a tenth of the time that looking at each number takes
            raise Diverged("the encoder's features are not finite: its weights have diverged, or are damaged")
        return maps

    def blank_maps(self, dense: bool = False) -> list[Tensor]:
        """Returns each stage's map of a black image, [1, width, h, w]: maps of other images have the same shape."""
        side = self.source.size
        black = torch.zeros(1, side, side, 3, dtype=torch.uint8, device=self.device)
        return self.feature_maps(black, dense)

    @cached_property
    def last_map(self) -> int:
        """Returns the number, from 0, of the deepest stage of several cells; the deepest of all if each is a vector."""
        maps = self.blank_maps()
        return max((i for i, m in enumerate(maps) if m.shape[2] * m.shape[3] > 1), default=len(maps) - 1)

    def pool(self, images: Tensor, cells: int = 1) -> list[Tensor]:
        """Computes the features of each stage: its map averaged to few cells and flattened.

        Args:
            images: [b, s, s, 3] uint8 on the device.
            cells: Cells along each side that a map is averaged to; a map of fewer cells stays as it is.

        Returns:
            For each stage: [b, width * cells**2] float32, or [b, width] of a class token.

        Raises:
            Diverged: If a map is not finite.
        """
        return [F.adaptive_avg_pool2d(m, min(cells, *m.shape[2:])).flatten(1) for m in self.feature_maps(images)]

    def _batches(self, part: str, ids: np.ndarray) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for batch in evaluation_batches(self.source, part, ids, self.device, self.threads):
            good = batch.weights > 0
            if good.any():
                yield batch.images[good], batch.labels[good], batch.ids[good]

    def _recalibrate_batch_norm(self, ids: np.ndarray) -> None:
        """Sets batch-norm statistics to plain averages over whole images: training saw crops, tiles or holes."""
        norms = [m for m in self.encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch: the average of all batches seen
        self.encoder.train()
        seen = 0
        for images, *_ in self._batches("train", ids) if norms else ():
            if len(images) > 1:  # of one image there may be one value a channel, which has no variance
                self.feature_maps(images)
                seen += len(images)
        if norms and not seen:
            raise UserError(f"{self.source.name}: fewer than two of {len(ids):,} training images can be decoded")
        self.encoder.eval()
