"""A frozen encoder and the images that it is evaluated on: what features are extracted with, and what the protocols use
that look at images themselves."""

from collections.abc import Iterator
from dataclasses import dataclass
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
from ssl_core.errors import Diverged, UserError
from ssl_core.task import InputFormat

POOL = 2  # every stage's map is averaged to POOL x POOL cells and flattened
CALIBRATION_IMAGES = 2000  # unlabeled training images that batch norm's statistics are re-estimated on
SPLITS = ("train", "val", "test")
DESCRIPTIONS = {
    "train": "training images that a probe learns from",
    "val": "held-out training images",
    "test": "test images",
}


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Which labeled images a probe learns from; test images are all of the test part."""

    num_labels: int = 12_000
    """labeled training images that a probe may use, held-out ones included; 0 for all"""
    val_fraction: float = 1 / 6
    """share of them that chooses stage and learning rate; test data chooses nothing"""


def make_splits(source: Source, splits: Splits, seed: int) -> tuple[np.ndarray, dict[str, tuple[str, np.ndarray]]]:
    """-> (all training ids in the order of `seed`, {"train", "val", "test": (part of the source, ids)}).

    Where the source has no labels, training images take their place: as many as `splits.num_labels`, half of them as
    test images if there is no test part. Raises UserError if there are too few images to evaluate by.
    """
    shuffled = make_sampler(source.train, seed).at(np.arange(len(source.train)))[0]
    usable = shuffled[source.train.labels[shuffled] >= 0] if source.classes else shuffled
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
    """`most` of the rows 0 to n - 1, evenly spaced, or all of them: [min(n, most)] int64."""
    return np.arange(min(n, most)) * n // max(1, min(n, most))


def normalize(images: Tensor, normalization: str, format: InputFormat) -> Tensor:
    """[b, s, s, 3] uint8 -> [b, 3, s, s]: "dataset" by fixed statistics, "image" by each image's own."""
    b, size = images.shape[:2]
    zeros = torch.zeros(b, dtype=torch.int64, device=images.device)
    pairs = zeros[:, None].expand(b, 2)
    if normalization == "dataset":
        return rotate(images, zeros, zeros, pairs, size=size, **format.options())
    one, shifts = zeros[:, None], zeros[:, None, None].expand(b, 3, 2)
    return shuffle_tiles(images, one, pairs[:, None], shifts, zeros, tile=size, standardize=True, **format.options())


class FrozenEncoder:
    """A frozen encoder, its batch-norm statistics re-estimated, with the images of each split.

    `parts` is {"train", "val", "test": (part of the source, ids)}, see `make_splits`; `keep`, if given, a folder of the
    protocol's own where one that takes long keeps its checkpoints. Raises UserError if there are too few images.
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
        """How many; 0 where there are no labels."""
        return len(self.source.classes)

    def images(self, split: str, most: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The images of "train", "val" or "test", whole and in order, or `most` of them, evenly spaced, since test
        images may lie class by class: batches of ([b, size, size, 3] uint8 on the device, [b] int64 labels there, -1
        where there are none). What cannot be decoded is left out. Raises UserError if that is all of them."""
        part, ids = self.parts[split]
        ids, read = ids if most is None else ids[evenly_spaced(len(ids), most)], []
        for images, labels in self._batches(part, ids):
            read.append(labels)
            yield images, labels
        if not read:
            raise UserError(f"{self.source.name}: none of the {len(ids):,} {DESCRIPTIONS[split]} can be decoded")
        if most is None:
            self.labels[split] = torch.cat(read).cpu().numpy()

    def numbered_images(self, split: str, most: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The same images with a number for each, as chance is drawn by: batches of ([b, size, size, 3] uint8, [b]
        int64)."""
        first = 0
        for images, _ in self.images(split, most):
            yield images, torch.arange(first, first + len(images), device=self.device)
            first += len(images)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """[b, s, s, 3] uint8 -> each stage's map [b, width, h, w] float32, shallow to deep, under the encoder's
        normalization; no gradient. Raises Diverged if they are not finite: numbers would be made of nothing."""
        with torch.no_grad():
            maps = self.encoder(normalize(images, self.normalization, self.format))
        if not all(map.sum().isfinite() for map in maps):  # a tenth of the time that looking at each number takes
            raise Diverged("the encoder's features are not finite: its weights have diverged, or are damaged")
        return maps

    def blank_maps(self) -> list[Tensor]:
        """Each stage's map of a black image, [1, width, h, w]: its shape is that of any image's."""
        side = self.source.size
        return self.feature_maps(torch.zeros(1, side, side, 3, dtype=torch.uint8, device=self.device))

    def pool(self, images: Tensor, cells: int = 1) -> list[Tensor]:
        """[b, s, s, 3] uint8 -> each stage's map averaged to `cells` x `cells` and flattened: [b, width * cells**2]."""
        return [F.adaptive_avg_pool2d(m, cells).flatten(1) for m in self.feature_maps(images)]

    def _batches(self, part: str, ids: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in evaluation_batches(self.source, part, ids, self.device, self.threads):
            good = batch.weights > 0
            if good.any():
                yield batch.images[good], batch.labels[good]

    def _recalibrate_batch_norm(self, ids: np.ndarray) -> None:
        """Batch-norm statistics as plain averages over whole images: training saw crops, tiles or holes."""
        norms = [m for m in self.encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch: the average of all batches seen
        self.encoder.train()
        seen = 0
        for images, _ in self._batches("train", ids) if norms else ():
            if len(images) > 1:  # of one image there may be one value a channel, which has no variance
                self.feature_maps(images)
                seen += len(images)
        if norms and not seen:
            raise UserError(f"{self.source.name}: fewer than two of {len(ids):,} training images can be decoded")
        self.encoder.eval()
