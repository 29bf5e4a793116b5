"""lightly's transforms and losses (https://github.com/lightly-ai/lightly) in the same loop, for tasks that it has."""

from collections.abc import Callable, Iterator

import torch
from lightly.loss import NTXentLoss
from lightly.transforms import MAETransform, SimCLRTransform
from torch import Tensor

from benchmarks.pipelines import Case, plain_loop
from benchmarks.pipelines.torchvision import Images, batches, read_picture, with_mask
from ssl_core.task import PretextModel
from ssl_core.tasks.mae import MAE
from ssl_core.tasks.simclr import SimCLR


def _statistics(case: Case) -> dict:
    mean, std = ([v / 255 for v in values] for values in (case.source.mean, case.source.std))
    return {"mean": mean, "std": std}


def _simclr(case: Case) -> Iterator[Tensor]:
    model, criterion = case.model(), NTXentLoss(temperature=0.5)
    assert isinstance(model.task, SimCLR)
    options = dict(cj_strength=0.5, min_scale=0.2, gaussian_blur=0.0, normalize=_statistics(case))
    dataset = Images(case, SimCLRTransform(model.task.side, **options), read_picture)
    project = torch.compile(_projector(model)) if case.compile else _projector(model)

    def loss(model, predict, inputs, targets) -> Tensor:
        return criterion(*project(torch.cat(inputs)).chunk(2))

    return plain_loop(case, model, ((views, None) for views, _ in batches(case, dataset)), loss)


def _projector(model: PretextModel) -> Callable:
    return lambda images: model.task.head(model.encoder(images)[-1].mean((2, 3)))


def _mae(case: Case) -> Iterator[Tensor]:
    model = case.model()
    assert isinstance(model.task, MAE)
    transform = MAETransform(model.task.side, min_scale=0.2, normalize=_statistics(case))
    dataset = Images(case, transform, read_picture)
    made = (with_mask(model.task, views[0]) for views, _ in batches(case, dataset))
    return plain_loop(case, model, made)


TRAININGS = {"simclr": _simclr, "mae": _mae}


def pipelines(case: Case) -> dict[str, Iterator[Tensor]]:
    return {"DataLoader, lightly": TRAININGS[case.task](case)} if case.task in TRAININGS else {}
