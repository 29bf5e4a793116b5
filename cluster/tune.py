"""Runs trials side by side with Ray Tune and stops those that fall behind early (ASHA: Li et al. 2020,
arXiv:1810.05934)."""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from cluster.heartbeat import Heartbeat, ask_last_beats, sending_heartbeats
from cluster.retry import Preempted, describe_error, fault_kind

# Tune's own files, tables and handling of Ctrl-C stay out: what a trial leaves behind is its caller's
SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_THRESHOLD_S": "60",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",
}
LOST_S = 120.0  # seconds without a sign of life until a trial is not waited for any more
MAX_RETRIES = 3  # after a process or a machine died; the trial itself continues from its last checkpoint


@dataclass(frozen=True)
class Trial:
    """Describes a trial: `rows(*args)` works and yields rows with "step", rising up to `steps`, and "loss", smaller
    is better.

    As any job does, it saves and raises Preempted when its heartbeat says so.
    """

    name: str
    group: str  # losses are compared within it only
    rows: Callable[..., Iterator[dict]]
    args: tuple
    steps: int


@dataclass(frozen=True)
class TrialEnd:
    """Says how a trial ended: complete, stopped early, or with an error."""

    name: str
    step: int  # the last one that it told of
    loss: float | None
    error: str | None = None


def tune(
    trials: list[Trial],
    *,
    grace: float,
    reduction: float,
    gpus: float,
    on_end: Callable[[TrialEnd], object],
    stop_requested: Callable[[], bool] = lambda: False,
) -> None:
    """Runs all trials in the open session, with one CPU each, as many at once as there are resources for.

    Successive halving works asynchronously and in each group by itself: at the fraction `grace` of its steps, at
    `reduction` times as many, and so on, a trial goes on only among the best 1 / `reduction` of those that came as
    far. A trial that a dead process cut off begins again.

    Source: ASHA (Li et al. 2020, arXiv:1810.05934).

    Args:
        trials: The trials, with names that differ.
        grace: Fraction of its steps that each trial gets before it can be stopped.
        reduction: One in so many goes on at each comparison.
        gpus: GPUs for each trial.
        on_end: Is called in this process, once for each trial.
        stop_requested: Is asked again and again. Once it returns True, trials are asked to save and stop, those that
            have not begun do not, and the function returns when all have stopped.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray.tune

    from cluster.resources import start_heartbeat_registry

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # `on_end` says it in one line
    by_name, registry = {trial.name: trial for trial in trials}, start_heartbeat_registry()
    with tempfile.TemporaryDirectory(prefix="tilespin-tune-") as scratch:
        ray.tune.Tuner(
            ray.tune.with_resources(
                ray.tune.with_parameters(_trainable(), trials=by_name, registry=registry),
                {"cpu": 1, "gpu": gpus} if gpus else {"cpu": 1},
            ),
            param_space={"trial": ray.tune.grid_search(list(by_name))},
            tune_config=ray.tune.TuneConfig(
                metric="loss", mode="min", scheduler=_scheduler(by_name, grace, reduction), reuse_actors=False
            ),
            run_config=ray.tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                verbose=0,
                callbacks=[_callback(on_end)],
                stop=_stopper(stop_requested, registry, list(by_name)),
                failure_config=ray.tune.FailureConfig(max_failures=MAX_RETRIES),
                checkpoint_config=ray.tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()


def _trainable() -> type:
    from ray.tune import Trainable

    class Training(Trainable):
        """Runs one trial, in a process of its own."""

        def setup(self, config: dict, trials: dict[str, Trial], registry: Any) -> None:
            self.trial, self.beats = trials[config["trial"]], ExitStack()
            heartbeat = self.beats.enter_context(sending_heartbeats(Heartbeat(config["trial"], registry)))
            self.stopped = heartbeat.stop_requested
            self.rows = iter(()) if self.stopped else self.trial.rows(*self.trial.args)
            self.last: dict[str, Any] = {"step": 0, "loss": float("inf")}

        def step(self) -> dict:
            try:
                row = next(self.rows, None)
            except Preempted:
                self.stopped = True
                return self._done()
            except Exception as error:
                if fault_kind(error) != "final":
                    raise
                return self._done(error=describe_error(error))
            if row is None:
                return self._done()
            self.last = {"step": row["step"], "loss": row["loss"]}
            return self.last

        def _done(self, **more) -> dict:
            self.beats.close()
            return {**self.last, "stopped": self.stopped, "done": True, **more}

        def cleanup(self) -> None:
            close = getattr(self.rows, "close", None)  # which ends what the trial keeps open
            if close:
                close()
            self.beats.close()

    return Training


def _scheduler(by_name: dict[str, Trial], grace: float, reduction: float):
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    class EachGroupByItself(FIFOScheduler):
        """Gives each group of trials a scheduler of its own: Tune has one for all, but losses of two tasks do not
        compare."""

        def __init__(self) -> None:
            super().__init__()
            self.of: dict[str, ASHAScheduler] = {}

        def group(self, trial):
            one = by_name[trial.config["trial"]]
            if one.group not in self.of:
                # the last rung lies beyond the end: a trial that came so far is complete, and nobody stops it
                self.of[one.group] = ASHAScheduler(
                    time_attr="step",
                    metric="loss",
                    mode="min",
                    max_t=one.steps + 1,
                    grace_period=max(1, round(grace * one.steps)),
                    reduction_factor=reduction,
                )
            return self.of[one.group]

        def on_trial_add(self, tune_controller, trial) -> None:
            self.group(trial).on_trial_add(tune_controller, trial)

        def on_trial_result(self, tune_controller, trial, result) -> str:
            return self.group(trial).on_trial_result(tune_controller, trial, result)

        def on_trial_complete(self, tune_controller, trial, result) -> None:
            self.group(trial).on_trial_complete(tune_controller, trial, result)

        def on_trial_error(self, tune_controller, trial) -> None:
            self.group(trial).on_trial_error(tune_controller, trial)

        def on_trial_remove(self, tune_controller, trial) -> None:
            self.group(trial).on_trial_remove(tune_controller, trial)

    return EachGroupByItself()


def _stopper(stop_requested: Callable[[], bool], registry: Any, names: list[str]):
    import ray
    from ray.tune.stopper import NoopStopper

    class OnRequest(NoopStopper):
        """Has trials stop by themselves, and stops what is left then: Tune kills what does not stop within 10 s."""

        def stop_all(self) -> bool:
            if not stop_requested():
                return False
            ray.get(registry.request_stop.remote(names))
            beats = [beat for workers in ask_last_beats(registry).values() for beat in workers.values()]
            return all(beat.ended or age > LOST_S for beat, age in beats)

        def __reduce__(self):
            return NoopStopper, ()  # as of callbacks, Tune keeps a copy

    return OnRequest()


def _callback(on_end: Callable[[TrialEnd], object]):
    from ray.tune import Callback

    class ReportEnd(Callback):
        """Reports the end of each trial."""

        def __init__(self) -> None:
            self.on_end = on_end

        def __reduce__(self):
            return Callback, ()  # Tune keeps a copy of all it was given, for a restart of its own that never comes

        def on_trial_complete(self, iteration, trials, trial, **info) -> None:
            result = trial.last_result
            if not result.get("stopped"):
                self.on_end(TrialEnd(trial.config["trial"], result["step"], result["loss"], result.get("error")))

        def on_trial_error(self, iteration, trials, trial, **info) -> None:
            result = trial.last_result or {}
            why = str(trial.get_pickled_error() or "its process died").strip().splitlines()
            self.on_end(TrialEnd(trial.config["trial"], result.get("step", 0), result.get("loss"), why[-1]))

    return ReportEnd()
