"""Describes a pretraining run and checks it before it starts."""

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import jobs.pretraining.compilers as compilers
import ssl_core.encoders.build as encoders
import ssl_core.storage.checkpoint as checkpoint
from jobs.config.interval import Interval
from jobs.config.recipe import PretrainConfig, Recipe
from jobs.config.runtime import RuntimeConfig
from jobs.config.start import load_start, start_digest
from jobs.study.folder import Study
from jobs.tracking.connection import DecidedMode
from ssl_core.activation_checkpointing import check_blocks
from ssl_core.cuda_graph import Mode as CudaGraphs
from ssl_core.data.dataset import Source
from ssl_core.data.loaders.select import Name as Loader
from ssl_core.data.loaders.select import choose_loader
from ssl_core.errors import UserError
from ssl_core.macs import check_views
from ssl_core.parts import check_one_image, check_parts
from ssl_core.storage.files import exists
from ssl_core.task import DataInfo, InputFormat, PretextModel, task_name, tasks
from ssl_core.train import TrainConfig, why_no_graph


@dataclass(frozen=True, kw_only=True)
class Training:
    """Describes one pretraining run, ready to be handed to a worker; only `recipe` changes the weights."""

    recipe: Recipe
    study: str  # the study's folder, or its URL
    name: str  # of the run: <task>-<hash>
    checkpoint_every: Interval
    keep: checkpoint.Keep
    step_timeout: float  # seconds without a step until a worker is taken for hung
    tracking: DecidedMode
    compile: bool = False
    activation_checkpointing: bool = False
    cuda_graphs: CudaGraphs = "off"
    loader: Loader = "auto"
    threads: int = 1  # that decode images, for each worker
    log_every: int = 20
    profile: int = 0  # steps that are profiled
    evaluate_at: tuple[int, ...] = ()  # steps after which its encoder is kept, beside that of the last

    @property
    def root(self) -> Path:
        """Returns the study's folder."""
        return Study(self.study).root

    @property
    def folder(self) -> Path:
        """Returns the run's folder."""
        return Study(self.study).run(self.name)

    @property
    def finished(self) -> bool:
        """Returns whether the encoder is there, and those that are kept before the last step."""
        return exists(self.folder / "encoder.json") and not self.missing_steps()

    def missing_steps(self) -> list[int]:
        """Returns the steps, in ascending order, whose encoders are to be kept and are not there."""
        return [step for step in sorted(self.evaluate_at) if not exists(self.folder_at(step) / "encoder.json")]

    def folder_at(self, step: int) -> Path:
        """Returns the folder of the encoder that is kept after this many steps."""
        return Study(self.study).run_at(self.name, step)

    @property
    def train_config(self) -> TrainConfig:
        """Returns how long and how its model is trained."""
        recipe = self.recipe
        return TrainConfig(
            steps=recipe.steps,
            seed=recipe.seed,
            optim=recipe.task.optim,
            precision=recipe.precision,
            grad_accumulation=recipe.grad_accumulation,
            compile=self.compile,
            activation_checkpointing=self.activation_checkpointing,
            cuda_graphs=self.cuda_graphs,
        )


def build_model(recipe: PretrainConfig | Recipe, source: Source) -> tuple[PretextModel, InputFormat]:
    """Builds the module that a recipe trains: its encoder at its start, and the rest at random.

    A start from pretrained weights brings the statistics that it wants its pixels normalized by.

    Args:
        recipe: The recipe.
        source: Its dataset.

    Returns:
        The module, and the format of the pixels that it takes.

    Raises:
        UserError: If the encoder cannot be built, has nothing to train, or does not start from the weights that the
            run began with.
    """
    if encoders.is_floor(recipe.encoder):
        raise UserError(f"--encoder {recipe.encoder} is a floor: there is nothing in it to train")
    start = load_start(recipe.init)
    if isinstance(recipe, Recipe) and start_digest(recipe.init) != recipe.init_digest:
        raise UserError(f"--init {recipe.init} has other weights than when this run was planned")
    encoder = copy.deepcopy(start.network()) if start else encoders.build(recipe.encoder, source.size, recipe.seed)
    info = encoders.describe(encoder, recipe.encoder, source.size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        data = DataInfo(source.size, len(source.classes), len(source.train))
        task = tasks()[task_name(recipe.task)](recipe.task, info, data)
    dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    mean, std = (start.mean, start.std) if start else (source.mean, source.std)
    return PretextModel(encoder, task), InputFormat(mean, std, dtype)


def prepare_training(
    config: PretrainConfig, study: Study, runtime: RuntimeConfig, evaluate_at: Sequence[float] = ()
) -> Training:
    """Checks a run before anything starts, and describes it for a worker.

    Args:
        config: The run as it is asked for.
        study: The study that it belongs to.
        runtime: Where and how it runs.
        evaluate_at: When encoders are kept before the last step: fractions of the training up to 1, or steps.

    Raises:
        UserError: If something in the options cannot work.
    """
    source = config.source()
    recipe = config.resolved(source, runtime.resolved_device())
    worlds = range(max(1, runtime.worker_range.min), max(1, runtime.worker_range.max) + 1)
    fewest = check_parts(recipe.task, recipe.grad_accumulation, worlds, len(source.train))
    model, _ = build_model(recipe, source)
    check_views(model, source.size)
    if fewest == 1:
        check_one_image(model, source.size)
    if runtime.activation_checkpointing:
        check_blocks(model.encoder, recipe.encoder)
    if runtime.compile and not os.environ.get("RAY_ADDRESS"):  # or another machine compiles
        compilers.check_compiler(runtime.resolved_device())
    if runtime.loader != "auto":  # which the worker decides, on its own machine
        workers = max(1, runtime.worker_range.max)
        choose_loader(runtime.loader, source, torch.device("cpu"), workers, recipe.task.loader_min_area)
    training = Training(
        recipe=recipe,
        study=str(study.root),
        name=recipe.run_name(source),
        checkpoint_every=runtime.checkpoint_interval,
        keep=runtime.retention,
        step_timeout=runtime.step_timeout_s,
        tracking=runtime.tracking,
        compile=runtime.compile,
        activation_checkpointing=runtime.activation_checkpointing,
        cuda_graphs=runtime.cuda_graphs,
        loader=runtime.loader,
        threads=decode_threads(runtime, source),
        evaluate_at=_steps_before_the_last(evaluate_at, recipe),
    )
    if training.cuda_graphs == "on":
        device, workers = runtime.resolved_device(), runtime.worker_range.max
        if why_not := why_no_graph(training.train_config, model.task, device, workers):
            raise UserError(f"--cuda-graphs on: {why_not}")
    return training


def _steps_before_the_last(points: Sequence[float], recipe: Recipe) -> tuple[int, ...]:
    """Returns fractions of a training, or steps, as steps; the last step is none of them."""
    steps = {max(1, round(one * recipe.steps)) if one <= 1 else int(one) for one in points}
    if beyond := [step for step in steps if step > recipe.steps]:
        name = task_name(recipe.task)
        raise UserError(f"--evaluate-at {min(beyond)} is after the last of the {recipe.steps:,} steps of {name}")
    return tuple(sorted(steps - {recipe.steps}))


def decode_threads(runtime: RuntimeConfig, source: Source) -> int:
    """Returns the decoding threads of each job: as given, else the cores shared among the jobs that run at once."""
    if runtime.decode_threads > 0 or source.train.pixels is not None:
        return max(1, runtime.decode_threads)
    cores = len(os.sched_getaffinity(0))
    if not runtime.worker_range.max:
        return cores
    return (
        max(1, cores // torch.cuda.device_count())
        if runtime.resolved_device() == "cuda" and torch.cuda.is_available()
        else 1
    )
