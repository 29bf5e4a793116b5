"""Measures whether features move predictably when the image is transformed, and what of the transform they keep.

`invariance` says how far features f(x) of an image x move. Features that move may do so in a way that the transform
decides (equivariance), or in another way for each image. Two measures, without labels, tell them apart:
- The error of a linear map. For each transform T of `known_transforms.FIXED`, whose parameters are the same for all
  images, since one map can stand for one transform only: ridge regression of f(Tx) on f(x), penalized by how far it is
  from the best map that only shrinks features toward their mean, all alike. Its squared error on test images is divided
  by that of the better of two guesses that know nothing of T: that features stay, or that they go to the mean of all
  f(Tx). 0: a linear map says where each image goes; 1: it says no more than these guesses do. Chance movement comes to
  3/4 to 1: after a wide step features lie nearer to their mean than where they were. Of more training images a better
  map could be found, so that the error is an upper bound, to be compared among encoders of one width. Features that do
  not move, or by less than a hundredth of the distance of two images, have no error: where there is no distance to
  cover nothing can be said of how predictably it is covered. So it is with an encoder that has collapsed. Linear maps
  between features of transformed images: Lenc and Vedaldi 2015, arXiv:1411.5908.
- The coefficient of determination (R^2) of ridge regression of a transform's parameters, drawn at random for each
  image, on the pair of features f(x) and f(Tx): 1 if they can be read off, 0 if the pair tells no more than the
  parameters' mean, and below 0, on test images, if it misleads. A linear regression adds what it reads off each of the
  two; the sources use networks of several layers. Pairs: AugSelf (Lee et al. 2021, arXiv:2111.09613), SIE (Garrido et
  al. 2023, arXiv:2302.10283).

Features are those that probes get: a stage's map averaged to POOL x POOL cells, and each coordinate standardized by its
mean and standard deviation over training images. (`invariance` averages a map to one cell.) All is fit to images of
"train"; those of "val" choose each penalty, and test images choose nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.random import RandomBits
from ssl_core.evaluation.frozen_encoder import POOL, SPLITS, FrozenEncoder
from ssl_core.evaluation.known_transforms import DRAWN, FIXED, Drawn
from ssl_core.evaluation.protocol import Protocol, Result
from ssl_core.evaluation.ridge import RidgePath, r_squared
from ssl_core.evaluation.transforms import View

STILL = 1e-2  # of the distance of two images: features that move less have not moved
Batches = dict[str, list[tuple[Tensor, RandomBits]]]  # by split: images, [b, s, s, 3] uint8, and random numbers
Stages = list[dict[str, Tensor]]  # by split: [n, d] float32


class Equivariance(Protocol):
    """Measures how predictably features move when the image is transformed."""

    version = 1
    on = "encoder"
    needs_labels = False
    headline, higher_is_better = "rotation", False

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sets how many images there are; they are evenly spaced, and stay in memory."""

        images: int = 2000
        """training images that maps are fit to"""
        held_out: int = 500
        """held-out training images, which choose penalties"""
        test: int = 500
        """test images"""

    def run(self, model: FrozenEncoder, config: Config, seed: int) -> Result:
        """Computes the errors of linear maps and the R^2 of parameters.

        Args:
            model: The encoder with its images.
            config: Numbers of images.
            seed: Decides the parameters that are drawn.

        Returns:
            `<transform>/<strength>`, an error at the last stage, for transforms of several strengths;
            `<transform>/stageN`, the mean error over strengths at stage N (counted from 1); `<transform>`, that at the
            last stage; `r2/<parameter>/stageN` and, at the last stage, `r2/<parameter>`. Where features do not move
            there is no error, and where test images have all the same parameter no R^2; notes say so.
        """
        counts = dict(zip(SPLITS, (config.images, config.held_out, config.test)))
        # the epoch keeps the draws of the splits apart
        batches = {
            split: [
                (images, RandomBits(ids, torch.full_like(ids, i), seed))
                for images, ids in model.numbered_images(split, counts[split])
            ]
            for i, split in enumerate(SPLITS)
        }
        plain, scales = _standardized(_pooled(model, batches, _always(lambda images, bits: images))[0])
        errors, still = _errors(model, batches, plain, scales)
        r2, constant = _r_squared(model, batches, plain, scales)
        notes = ()
        if still:
            notes += (f"no error of a linear map where features have no distance to cover: {', '.join(still)}",)
        if constant:
            notes += (f"no R^2 where test images have all the same parameter: {', '.join(constant)}",)
        return Result(errors | r2, notes=notes)


def _standardized(pooled: list[dict[str, Tensor]]) -> tuple[Stages, list[tuple[Tensor, Tensor]]]:
    """Returns the standardized features of each stage, with the mean and the deviation that they are standardized by.

    Args:
        pooled: For each stage, by split, features, [n, d].
    """
    scales = []
    for stage in pooled:
        std = stage["train"].std(0, correction=0)
        scales.append((stage["train"].mean(0), torch.where(std > 1e-6, std, 1.0)))
    return _scaled(pooled, scales), scales


def _scaled(stages: Stages, scales: list[tuple[Tensor, Tensor]]) -> Stages:
    return [{split: (x - mean) / std for split, x in stage.items()} for stage, (mean, std) in zip(stages, scales)]


def _errors(
    model: FrozenEncoder, batches: Batches, plain: Stages, scales: list[tuple[Tensor, Tensor]]
) -> tuple[dict[str, float], list[str]]:
    """Returns the errors of linear maps, and the transforms under which features of some stage do not move."""
    paths = [RidgePath(stage["train"]) for stage in plain]
    held_out, asked = ([path.project(stage[split]) for path, stage in zip(paths, plain)] for split in ("val", "test"))
    numbers: dict[str, float] = {}
    still: list[str] = []
    for name, strengths in FIXED.items():
        by_stage: list[list[float]] = [[] for _ in plain]
        for strength, view in strengths.items():
            moved = _scaled(_pooled(model, batches, _always(view))[0], scales)
            for i, (path, x, y) in enumerate(zip(paths, plain, moved)):
                share = _best_share(x["train"], y["train"])
                fit = path.fit(y["train"] - share * x["train"], held_out[i], y["val"] - share * x["val"])
                predicted = share * x["test"] + fit.predict(asked[i])
                value = relative_error(predicted, x["test"], y["test"], y["train"].mean(0))
                if value is None:
                    still.append(f"{name}/{strength} at stage {i + 1}")
                    continue
                by_stage[i].append(value)
                if i == len(plain) - 1 and len(strengths) > 1:
                    numbers[f"{name}/{strength}"] = value
        means = {i: sum(values) / len(values) for i, values in enumerate(by_stage, start=1) if values}
        numbers |= {f"{name}/stage{i}": mean for i, mean in means.items()}
        if len(plain) in means:
            numbers[name] = means[len(plain)]
    return numbers, still


def _best_share(x: Tensor, y: Tensor) -> float:
    """Returns the number that x, [n, d] of mean 0, is best multiplied by to be near y, [n, d], but for a constant."""
    return float((x * y).sum() / x.square().sum().clamp(min=1e-30))


def relative_error(predicted: Tensor, x: Tensor, y: Tensor, mean: Tensor) -> float | None:
    """Returns the mean squared error of predictions over that of the better of two guesses: `x`, and `mean`.

    Args:
        predicted: [n, d].
        x: [n, d], standardized features of images.
        y: [n, d], those of the transformed images, which are predicted.
        mean: [d], the mean features of transformed images.

    Returns:
        0 for a perfect prediction, about 1 for none; None if the better guess is less than STILL of the distance of two
        images away, of which standardized features have a mean square of 2 d.
    """
    stay, common = (float((guess - y).square().sum(1).mean()) for guess in (x, mean))
    if min(stay, common) <= STILL**2 * 2 * x.shape[1]:
        return None
    return float((predicted - y).square().sum(1).mean()) / min(stay, common)


def _r_squared(
    model: FrozenEncoder, batches: Batches, plain: Stages, scales: list[tuple[Tensor, Tensor]]
) -> tuple[dict[str, float], list[str]]:
    """Returns the R^2 of drawn parameters at each stage, and the parameters that do not vary among test images."""
    numbers: dict[str, float] = {}
    constant = []
    for name, draw in DRAWN.items():
        moved, drawn = _pooled(model, batches, draw)
        for i, (x, y) in enumerate(zip(plain, _scaled(moved, scales)), start=1):
            pair = {split: torch.cat([x[split], y[split]], 1) for split in SPLITS}
            path = RidgePath(pair["train"])
            fit = path.fit(drawn["train"], path.project(pair["val"]), drawn["val"])
            value = r_squared(fit.predict(path.project(pair["test"])), drawn["test"])
            if value is not None:
                numbers[f"r2/{name}/stage{i}"] = value
        if (last := f"r2/{name}/stage{len(plain)}") in numbers:
            numbers[f"r2/{name}"] = numbers[last]
        else:
            constant.append(name)
    return numbers, constant


def _pooled(model: FrozenEncoder, batches: Batches, draw: Drawn) -> tuple[Stages, dict[str, Tensor]]:
    """Returns the features of transformed images at each stage and, by split, the parameters, [n, m]."""
    stages: Stages = []
    parameters = {}
    for split, of in batches.items():
        made = (draw(images, bits) for images, bits in of)  # a batch at a time
        rows = [(model.pool(images, POOL), drawn) for images, drawn in made]
        parameters[split] = torch.cat([drawn for _, drawn in rows])
        stages = stages or [{} for _ in rows[0][0]]
        for stage, features in zip(stages, zip(*(pooled for pooled, _ in rows))):
            stage[split] = torch.cat(features)
    return stages, parameters


def _always(view: View) -> Drawn:
    """Returns a transform without parameters."""
    return lambda images, bits: (view(images, bits), torch.empty(len(images), 0))
