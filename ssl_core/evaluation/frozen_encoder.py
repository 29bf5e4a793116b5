"""A frozen encoder and the images that it is judged on: what features are extracted with, and what the protocols use
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
from ssl_core.data.sampler import order_of
from ssl_core.errors import BadInput, Diverged
from ssl_core.task import Format

POOL = 2  # every stage's map is averaged to POOL x POOL cells and flattened
CALIBRATION = 2000  # unlabelled training images that batch norm's statistics are re-estimated on
SPLITS = ("fit", "held", "test")
NAMES = {"fit": "training images that a probe learns from", "held": "held-out training images", "test": "test images"}


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Which labelled images a probe learns from; test images are all of the test part."""

    labels: int = 12_000
    """labelled training images that a probe may use, held-out ones included; 0 for all"""
    held_out: float = 1 / 6
    """share of them that chooses stage and learning rate; test data chooses nothing"""


def shares(source: Source, splits: Splits, seed: int) -> tuple[np.ndarray, dict[str, tuple[str, np.ndarray]]]:
    """-> (all training ids in the order of `seed`, {"fit", "held", "test": (part of the source, ids)}).

    Where the source has no labels, training images take their place: as many as `splits.labels`, half of them as test
    images if there is no test part. Raises BadInput if there are too few images to judge by.
    """
    shuffled = order_of(source.train, seed).at(np.arange(len(source.train)))[0]
    usable = shuffled[source.train.labels[shuffled] >= 0] if source.classes else shuffled
    usable, test = usable[: splits.labels or None], ("test", np.arange(len(source.test)))
    if not source.classes and not len(source.test):
        test, usable = ("train", usable[: len(usable) // 2]), usable[len(usable) // 2 :]
    held = max(1, round(len(usable) * splits.held_out))
    if len(usable) - held < 2 or not len(test[1]):
        labelled = "labelled " if source.classes else ""
        raise BadInput(
            f"{source.name} has {len(usable)} {labelled}training images and {len(test[1])} test "
            "images: too few to judge an encoder by"
        )
    return shuffled, {"fit": ("train", usable[held:]), "held": ("train", usable[:held]), "test": test}


def evenly(n: int, most: int) -> np.ndarray:
    """`most` of the rows 0 to n - 1, evenly spaced, or all of them: [min(n, most)] int64."""
    return np.arange(min(n, most)) * n // max(1, min(n, most))


def normalise(images: Tensor, normalisation: str, format: Format) -> Tensor:
    """[b, s, s, 3] uint8 -> [b, 3, s, s]: "dataset" by fixed statistics, "image" by each image's own."""
    b, size = images.shape[:2]
    zeros = torch.zeros(b, dtype=torch.int64, device=images.device)
    pairs = zeros[:, None].expand(b, 2)
    if normalisation == "dataset":
        return rotate(images, zeros, zeros, pairs, size=size, **format.options())
    one, shifts = zeros[:, None], zeros[:, None, None].expand(b, 3, 2)
    options = dict(tile=size, standardise=True, **format.options())
    return shuffle_tiles(images, one, pairs[:, None], shifts, zeros, **options)


class Model:
    """A frozen encoder, its batch-norm statistics re-estimated, with the images of each split.

    `parts` is {"fit", "held", "test": (part of the source, ids)}, see `shares`; `keep`, if given, a folder of the
    protocol's own where one that takes long keeps its checkpoints. Raises BadInput if there are too few images.
    """

    @torch.no_grad()
    def __init__(
        self,
        encoder: nn.Module,
        source: Source,
        normalisation: str,
        splits: Splits,
        seed: int,
        device: torch.device,
        threads: int,
        keep: Path | None = None,
    ):
        self.encoder = encoder.to(device, memory_format=torch.channels_last)
        self.source, self.normalisation, self.splits, self.seed = source, normalisation, splits, seed
        self.device, self.threads, self.keep = device, threads, keep
        self.format = Format(source.mean, source.std)
        shuffled, self.parts = shares(source, splits, seed)
        # [n] int64 by split, -1 where there are none: of all its images, and once they are read of those that can be
        self.labels = {split: getattr(source, part).labels[ids] for split, (part, ids) in self.parts.items()}
        self._recalibrate(shuffled[:CALIBRATION])

    @property
    def classes(self) -> int:
        """How many; 0 where there are no labels."""
        return len(self.source.classes)

    def images(self, split: str, most: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """The images of "fit", "held" or "test", whole and in order, or `most` of them, evenly spaced, since test
        images may lie class by class: batches of ([b, size, size, 3] uint8 on the device, [b] int64 labels there, -1
        where there are none). What cannot be decoded is left out. Raises BadInput if that is all of them."""
        part, ids = self.parts[split]
        ids, read = ids if most is None else ids[evenly(len(ids), most)], []
        for images, labels in self._batches(part, ids):
            read.append(labels)
            yield images, labels
        if not read:
            raise BadInput(f"{self.source.name}: none of the {len(ids):,} {NAMES[split]} can be decoded")
        if most is None:
            self.labels[split] = torch.cat(read).cpu().numpy()

    def drawn(self, split: str, most: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The same images with a number for each, as chance is drawn by: batches of ([b, size, size, 3] uint8, [b]
        int64)."""
        first = 0
        for images, _ in self.images(split, most):
            yield images, torch.arange(first, first + len(images), device=self.device)
            first += len(images)

    def maps(self, images: Tensor) -> list[Tensor]:
        """[b, s, s, 3] uint8 -> each stage's map [b, width, h, w] float32, shallow to deep, under the encoder's
        normalisation; no gradient. Raises Diverged if they are not finite: numbers would be made of nothing."""
        with torch.no_grad():
            maps = self.encoder(normalise(images, self.normalisation, self.format))
        if not all(map.sum().isfinite() for map in maps):  # a tenth of the time that looking at each number takes
            raise Diverged("the encoder's features are not finite: its weights have diverged, or are damaged")
        return maps

    def blank(self) -> list[Tensor]:
        """Each stage's map of a black image, [1, width, h, w]: its shape is that of any image's."""
        side = self.source.size
        return self.maps(torch.zeros(1, side, side, 3, dtype=torch.uint8, device=self.device))

    def pooled(self, images: Tensor, cells: int = 1) -> list[Tensor]:
        """[b, s, s, 3] uint8 -> each stage's map averaged to `cells` x `cells` and flattened: [b, width * cells**2]."""
        return [F.adaptive_avg_pool2d(m, cells).flatten(1) for m in self.maps(images)]

    def _batches(self, part: str, ids: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in evaluation_batches(self.source, part, ids, self.device, self.threads):
            good = batch.weights > 0
            if good.any():
                yield batch.images[good], batch.labels[good]

    def _recalibrate(self, ids: np.ndarray) -> None:
        """Batch-norm statistics as plain averages over whole images: training saw crops, tiles or holes."""
        norms = [m for m in self.encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch: the average of all batches seen
        self.encoder.train()
        seen = 0
        for images, _ in self._batches("train", ids) if norms else ():
            if len(images) > 1:  # of one image there may be one value a channel, which has no variance
                self.maps(images)
                seen += len(images)
        if norms and not seen:
            raise BadInput(f"{self.source.name}: fewer than two of {len(ids):,} training images can be decoded")
        self.encoder.eval()
