"""Defines complete studies by name."""

from dataclasses import dataclass, replace
from typing import Any

import tyro

from jobs.config.evaluation import Evaluation
from ssl_core.tasks.context import Context
from ssl_core.tasks.jigsaw import Jigsaw
from ssl_core.tasks.npid import NPID
from ssl_core.tasks.pirl import PIRL
from ssl_core.tasks.rotnet import RotNet
from ssl_core.tasks.simclr import SimCLR
from ssl_core.tasks.supervised import Supervised


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Trains several tasks on the same images with the same encoder and the same budget."""

    preset: tyro.conf.Suppress[str]
    tasks: tyro.conf.Suppress[tuple[Any, ...]]
    data: str
    """cifar10, fashion-mnist, or labeled images, which are
    a folder with one sub-folder for each class, a folder of tar files, a folder from tilespin pack, or a URL"""
    encoder: str
    """encoder that every task trains, and that is compared at random initialization; see tilespin pretrain"""
    budget: float
    """GMACs (10^9 multiply-accumulates) of encoder forward and backward that each task may spend"""
    size: int | None = None
    """side in pixels that images are resized to; default: the dataset's own, 96 for a folder"""
    seed: int = 0
    """seed of initialization, order and every random draw"""
    seeds: int = 1
    """trainings of each task, with seeds from --seed on; with several, intervals include differences between them"""
    evaluation: Evaluation = Evaluation()


DEMO = StudyConfig(
    preset="demo",
    tasks=(RotNet.Config(), Jigsaw.Config(), Context.Config(), Supervised.Config()),
    data="cifar10",
    encoder="convnet",
    budget=2800.0,
)

FULL = replace(
    DEMO,
    preset="full",
    tasks=(
        RotNet.Config(),
        Jigsaw.Config(),
        Context.Config(),
        PIRL.Config(),
        NPID.Config(),
        SimCLR.Config(),
        Supervised.Config(),
    ),
)

PRESETS = {config.preset: config for config in (DEMO, FULL)}
DESCRIPTIONS = {
    "demo": "RotNet, Jigsaw, context and supervised training on CIFAR-10, in a few minutes on a laptop's CPU.",
    "full": "The demo with the contrastive tasks PIRL, NPID and SimCLR as well.",
}
