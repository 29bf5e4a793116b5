"""Trains a pretraining run in a worker."""

import math
import sys
import time
from collections.abc import Generator
from functools import partial
from pathlib import Path

import torch

import jobs.pretraining.compilers as compilers
import ssl_core.storage.checkpoint as checkpoint
from cluster.heartbeat import current
from cluster.retry import Preempted
from cluster.watchdog import Watchdog
from jobs.config.interval import IntervalTimer
from jobs.config.recipe import Recipe
from jobs.pretraining.encoder_files import Spent, begin_peak, describe_encoder, keep_encoder
from jobs.pretraining.memory_advice import out_of_memory_advice
from jobs.pretraining.metrics_window import MetricsWindow
from jobs.pretraining.recorder import RunRecorder
from jobs.pretraining.run import Training, build_model
from jobs.pretraining.step_profile import StepProfile
from jobs.study.warning_log import warn
from ssl_core.data.dataset import Source
from ssl_core.data.loaders.prefetch import TimedIterator
from ssl_core.data.loaders.select import training_batches
from ssl_core.errors import DiskFull, Diverged, OutOfMemory, StorageError, UserError
from ssl_core.macs import encoder_macs
from ssl_core.storage.async_writer import DISK_FULL_ERRORS, AsyncWriter
from ssl_core.storage.files import exists, write_json, write_text
from ssl_core.storage.records import EncoderRecord
from ssl_core.storage.retry import short_deadline
from ssl_core.task import InputFormat, PretextModel
from ssl_core.train import rank_and_world_size, train

FIRST_STEP_TIMEOUT_S = 1200.0  # seconds: what is compiled or fetched at the beginning is no hang


def run_training(training: Training, device: str) -> EncoderRecord | None:
    """Trains in this process, one of the group's workers, and returns what encoder.json says.

    Workers that do not write it return None.

    It returns at once if the run is already complete, and continues from its newest good checkpoint otherwise.

    Args:
        training: The run.
        device: "cuda", "cuda:N" or "cpu".

    Raises:
        UserError: If something in the options cannot work.
        Diverged: If the loss is not finite.
        OutOfMemory: If the GPU's memory is too small.
        DiskFull: If there is no space left.
        StorageError: If the storage fails for too long, or workers see different checkpoints.
        Preempted: If the job was asked to stop, after it has saved.
    """
    rows = iter_metrics(training, device)
    while True:
        try:
            next(rows)
        except StopIteration as end:
            return end.value


def iter_metrics(training: Training, device: str) -> Generator[dict, None, EncoderRecord | None]:
    """Trains as `run_training` does, and yields each row of metrics.jsonl as it is written.

    Closed early, it saves and ends there; called again, it goes on from its last checkpoint. A complete run of which
    encoders are wanted that it did not keep is trained again as far as the last of them, and leaves nothing else.
    """
    if training.finished:
        return EncoderRecord.read(training.folder / "encoder.json")
    try:
        with AsyncWriter(lambda message: warn(training.root, message)) as writer:
            return (yield from _train_loop(training, device, writer))
    except Diverged as error:
        if rank_and_world_size()[0] == 0:  # by which tuning knows that the learning rate is at fault
            write_json(training.folder / "diverged.json", {"why": str(error)})
        raise
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(out_of_memory_advice(training, error)) from error
    except OSError as error:
        if error.errno in DISK_FULL_ERRORS:
            raise DiskFull(f"no room left: {error}; make room, and the same command continues") from error
        raise


def _train_loop(training: Training, device: str, writer: AsyncWriter) -> Generator[dict, None, EncoderRecord | None]:
    folder, recipe, heartbeat = training.folder, training.recipe, current()
    rank, world = rank_and_world_size()
    torch_device = torch.device(device)
    if training.compile:
        compilers.check_compiler(torch_device.type)
    source, model, format = _open_on_all_workers(recipe)
    # what rank 0 sees counts for all: it is the one that writes
    missing, complete = _all_gather((training.missing_steps(), exists(folder / "encoder.json")))[0]
    macs = encoder_macs(model, source.size)
    # the stub of Module.to does not have memory_format together with a device
    model = model.to(torch_device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    begin_peak(torch_device)
    state, damaged = _newest_common_checkpoint(folder / "checkpoints", min(missing, default=math.inf) - 1)
    first, started, before = state["step"] if state else 0, time.monotonic(), state["seconds"] if state else 0.0
    last = missing[-1] if complete else recipe.steps
    loader, batches = training_batches(
        source,
        batch=recipe.task.batch,
        steps=range(first, last),
        seed=recipe.seed,
        rank=rank,
        world=world,
        device=torch_device,
        loader=training.loader,
        threads=training.threads,
        warn=lambda message: warn(training.root, message),
        min_area=recipe.task.loader_min_area,
    )
    records = rank == 0 and not complete
    recorder = RunRecorder(training, source, state, writer, heartbeat.faults, world, torch_device) if records else None
    watchdog = Watchdog(
        training.step_timeout, lambda stacks: _report_hang(training, rank, heartbeat.step, stacks), FIRST_STEP_TIMEOUT_S
    )
    try:
        if recorder and damaged:
            warn(training.root, f"damaged checkpoints passed over: {' '.join(map(str, damaged))}")
            checkpoint.discard_damaged(damaged)
        window, batches, timer = MetricsWindow(state), TimedIterator(batches), IntervalTimer(training.checkpoint_every)
        heartbeat.beat(first)
        with watchdog, StepProfile(training, first, last, torch_device, wanted=rank == 0) as profile:
            steps = train(model, batches, format, training.train_config, state, partial(_warn, training, rank))
            del state  # as large as the model and its optimizer; `train` lets go of it too
            for step in steps:
                profile.completed(step.number)
                watchdog.feed()
                heartbeat.beat(step.number)
                window.add(step.metrics)
                if step.number in missing and rank == 0:
                    spent = Spent(
                        step=step.number,
                        macs=macs,
                        seconds=before + time.monotonic() - started,
                        restarts=recorder.rows.restarts if recorder else 0,
                        workers=world,
                        pretext=window.means(),
                    )
                    keep_encoder(training, model, describe_encoder(training, source, model, format, spent), writer)
                if step.number % training.log_every == 0 or step.number == recipe.steps:
                    means = window.end()
                    _check_finite(means, step.number, folder)
                    if recorder:
                        recorder.log(step.number, means, batches.waiting_share())
                        heartbeat.report(recorder.row)
                        try:
                            yield recorder.row
                        except GeneratorExit:
                            if step.number < recipe.steps:
                                recorder.checkpoint({**step.state(), "window": window.state()})
                            recorder.stopped(step.number)
                            try:
                                writer.flush()
                            except (OSError, StorageError) as error:
                                warn(training.root, f"{training.name}: not saved at step {step.number}: {error}")
                            raise
                if complete and rank == 0 and heartbeat.stop_requested:
                    raise Preempted(f"asked to stop, at step {step.number} of what is trained again")
                # rank 0 alone saves, so it alone leaves; Ray then ends the others, who wait for it
                if recorder and (timer.due(step.number) or heartbeat.stop_requested) and step.number < recipe.steps:
                    recorder.checkpoint({**step.state(), "window": window.state()})
                    if heartbeat.stop_requested:
                        writer.flush()
                        raise Preempted(f"asked to stop; saved at step {step.number}")
        skipped = set().union(*_all_gather(set(loader.skipped)))
        if recorder is None:
            return EncoderRecord.read(folder / "encoder.json") if rank == 0 else None
        return recorder.complete(model, format, loader, macs, sorted(skipped))
    finally:
        if recorder:
            recorder.close()


def _warn(training: Training, rank: int, message: str) -> None:
    """Warns of what all workers find alike."""
    if rank == 0:
        warn(training.root, f"{training.name}: {message}")


def _report_hang(training: Training, rank: int, step: int | None, stacks: str) -> None:
    """Keeps the stacks of a worker that makes no progress."""
    path = training.root / "logs" / f"hung-{training.name}-worker{rank}-{time.time_ns() // 10**9}.txt"
    message = f"{training.name}: worker {rank} made no progress for {training.step_timeout:.0f} s after step {step}"
    print(stacks, file=sys.stderr, flush=True)
    with short_deadline():
        write_text(path, f"{message}\n{stacks}")
    warn(training.root, f"{message}; its stacks are in {path}; it is started again")


def _open_on_all_workers(recipe: Recipe) -> tuple[Source, PretextModel, InputFormat]:
    """Opens the data and builds the module. A UserError on one worker is raised on all, which would wait for it
    otherwise."""
    opened, user_error = [], None
    try:
        source = recipe.source()
        opened = [source, *build_model(recipe, source)]
    except UserError as error:
        user_error = error
    for error in _all_gather(user_error):
        if error is not None:
            raise error
    source, model, format = opened
    return source, model, format


def _newest_common_checkpoint(folder: Path, at_most: float) -> tuple[dict | None, list[Path]]:
    """Returns the newest checkpoint up to step `at_most` that all workers can read, and the damaged ones that this one
    skipped."""
    state, damaged = checkpoint.load_newest(folder, at_most)
    steps = _all_gather(state["step"] if state else 0)
    if state and state["step"] > min(steps):
        state, _ = checkpoint.load_newest(folder, at_most=min(steps))
    agreed_steps = _all_gather(state["step"] if state else 0)
    # a machine without the shared folder, say
    if len(set(agreed_steps)) > 1 or (min(agreed_steps) == 0 and max(steps) > 0):
        raise StorageError(f"{folder}: workers see checkpoints of steps {steps}")
    return state, damaged


def _all_gather(value) -> list:
    """Returns the `value` of every worker, on every worker."""
    if rank_and_world_size()[1] == 1:
        return [value]
    found: list = [None] * rank_and_world_size()[1]
    torch.distributed.all_gather_object(found, value)
    return found


def _check_finite(means: dict[str, float], step: int, folder: Path) -> None:
    # after the last step no loss shows any more that gradients were not finite
    for name, what in (("loss", "loss"), ("grad_norm", "norm of the gradients")):
        if math.isfinite(means[name]):
            continue
        raise Diverged(
            f"the {what} is {means[name]} at step {step}: try a lower --lr, more --warmup or --clip-grad-norm 1; "
            f"the checkpoints in {folder / 'checkpoints'} are from before"
        )
