"""Evaluates an encoder by linear segmentation: a linear classifier of the cells of each frozen map.

For every stage and every learning rate a 1x1 convolution with bias starts from zero and is trained by cross-entropy on
cells that are standardized, channel by channel, on training images. Its scores are enlarged bilinearly to the image's
size, and pixels of no class are left out. It is trained on pixels drawn at random, equally many of each image: for
that, features are interpolated in place of scores, which is the same. For each stage the learning rate with the highest
mean intersection over union of drawn pixels of held-out images is taken, and of the stages the one with the highest;
test images choose nothing, and all of their pixels count. A class token, which is one vector of the whole image, is
left out. Raw pixels are classified by their three colors.

Source: linear segmentation as of DINOv2 (Oquab et al. 2023, arXiv:2304.07193, section 7.4), at the image's own size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_core.evaluation.frozen_encoder import FrozenEncoder
from ssl_core.evaluation.linear_classifiers import fit_linear
from ssl_core.evaluation.map_pixels import (
    enlarged_answers,
    images_at_once,
    mapped_stages,
    masked_images,
    sampled_features,
)
from ssl_core.evaluation.overlaps import Overlaps, count_overlaps, joined
from ssl_core.evaluation.protocol import Protocol, Result

SHOWN = 5  # classes that a note names


@dataclass(frozen=True)
class _Head:
    """Holds a stage's classifier of standardized cells, and the statistics to standardize by."""

    mean: Tensor  # [c]
    std: Tensor
    weight: Tensor  # [c, classes]
    bias: Tensor
    learning_rate: float
    val_score: float


class Segmentation(Protocol):
    """Trains a linear classifier of the cells of frozen maps."""

    version = 1
    on = "encoder"
    needs_labels = False
    needs_masks = True
    headline, higher_is_better = "miou", True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sets how the classifiers are trained."""

        learning_rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
        """each trains its own classifier in the same pass; held-out images choose"""
        epochs: int = 20
        batch: int = 1024
        """pixels of a step"""
        pixels: int = 100_000
        """pixels to train on, of all images together; at least one of each image"""
        memory: float = 2.0
        """GB that their features of all stages may take: else there are fewer"""

    def run(self, model: FrozenEncoder, config: Config, seed: int) -> Result:
        """Trains the classifiers and returns how far their answers overlap with the masks of test images.

        Args:
            model: The encoder with its images, which have masks.
            config: How to train.
            seed: Decides which pixels are trained on, and their order.

        Returns:
            Fractions: `miou`, the mean over classes of intersection over union, each summed over test images, of the
            chosen stage and learning rate, with its `draws`; `pixel_accuracy`; `iou/NAME` of each class that test
            images show, over which the mean is; and `miou/stageN` of stage N (counted from 1) with its own best
            learning rate. Of equal ones the shallower stage and the smaller learning rate are chosen.

        Raises:
            UserError: If all pixels are of no class.
            Diverged: If a map is not finite.
        """
        assert model.source.masks
        names = model.source.masks.classes
        count = _pixels_of_each(model, config)
        train, y = sampled_features(model, "train", count, seed)
        val, truth = sampled_features(model, "val", count, seed)
        heads = {}
        for stage in list(train):
            heads[stage] = _fit(train.pop(stage), y, val.pop(stage), truth, len(names), config, seed)
        found = _overlaps(model, heads, len(names))
        best = max(heads, key=lambda stage: heads[stage].val_score)
        test, head = found[best], heads[best]
        ious = {f"iou/{names[kind]}": float(iou) for kind, iou in zip(test.present, test.ious())}
        stages = {f"miou/stage{stage + 1}": of.miou() for stage, of in found.items()}
        return Result(
            {"miou": test.miou(), "pixel_accuracy": test.pixel_accuracy(), **stages, **ious},
            chosen={"stage": best + 1, "learning_rate": head.learning_rate, "val_score": head.val_score},
            notes=_absent_note(names, test),
            draws=test.draws(),
        )


def _pixels_of_each(model: FrozenEncoder, config: Segmentation.Config) -> int:
    """Returns how many pixels of each image are trained on."""
    room = int(config.memory * 1e9 / (4 * sum(mapped_stages(model).values())))
    return max(1, min(config.pixels, room) // len(model.parts["train"][1]))


def _fit(
    x: Tensor, y: Tensor, held_out: Tensor, truth: Tensor, classes: int, config: Segmentation.Config, seed: int
) -> _Head:
    """Trains a stage's classifiers on features of pixels, [n, c], and returns the best on held-out ones."""
    mean, std = x.mean(0), x.std(0, correction=0)
    std = torch.where(std > 1e-6, std, 1.0)
    weight, bias = fit_linear(
        x.sub_(mean).div_(std), y, classes, config.learning_rates, config.epochs, config.batch, seed
    )
    scores = torch.addmm(bias, held_out.sub_(mean).div_(std), weight).view(len(truth), -1, classes)
    values = [count_overlaps(one[None], truth[None], classes).miou() for one in scores.argmax(2).T]
    best = max(range(len(values)), key=values.__getitem__)
    weight, bias = weight.view(-1, len(values), classes)[:, best], bias.view(-1, classes)[best]
    return _Head(mean, std, weight, bias, config.learning_rates[best], values[best])


@torch.no_grad()
def _overlaps(model: FrozenEncoder, heads: dict[int, _Head], classes: int) -> dict[int, Overlaps]:
    """Returns how far the answers of each stage's classifier overlap with the masks of test images."""
    size, at_once = model.source.size, images_at_once(model, classes)
    parts: dict[int, list[Overlaps]] = {stage: [] for stage in heads}
    for images, masks in masked_images(model, "test"):
        for some, shown in zip(images.split(at_once), masks.split(at_once)):
            maps = model.feature_maps(some, dense=True)
            for stage, head in heads.items():
                cells = (maps[stage] - head.mean[:, None, None]) / head.std[:, None, None]
                answers = enlarged_answers(cells, head.weight, head.bias, size)
                parts[stage].append(count_overlaps(answers, shown, classes))
    return {stage: joined(of) for stage, of in parts.items()}


def _absent_note(names: tuple[str, ...], test: Overlaps) -> tuple[str, ...]:
    absent = sorted(set(range(len(names))) - set(test.present.tolist()))
    if not absent:
        return ()
    more = " …" if len(absent) > SHOWN else ""
    shown = ", ".join(names[i] for i in absent[:SHOWN])
    return (f"no test image shows {shown}{more} ({len(absent):,} of {len(names):,} classes), which do not count",)
