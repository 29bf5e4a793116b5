"""Ray Tune: trials side by side, those that fall behind stopped early (ASHA: Li et al. 2020, arXiv:1810.05934)."""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from cluster.heartbeat import Pulse, beating
from cluster.retry import Preempted, cause_of, kind_of

# Tune's own files, tables and handling of Ctrl-C stay out: what a trial leaves behind is its caller's
SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_THRESHOLD_S": "60",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",
}
LOST = 120.0  # seconds without a sign of life until a trial is not waited for any more
RETRIES = 3  # after a process or a machine died; the trial itself continues from its last checkpoint


@dataclass(frozen=True)
class Trial:
    """`rows(*args)` works and gives rows with "step", rising up to `steps`, and "loss", smaller is better. As any job
    does, it saves and raises Preempted when its pulse says so."""

    name: str
    group: str  # losses are compared within it only
    rows: Callable[..., Iterator[dict]]
    args: tuple
    steps: int


@dataclass(frozen=True)
class Ended:
    """How a trial ended: complete, stopped early, or with an error."""

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
    ended: Callable[[Ended], object],
    stop_requested: Callable[[], bool] = lambda: False,
) -> None:
    """Runs all `trials` in the open session, a core and `gpus` each, as many at once as there is room for.

    Asynchronous successive halving in each group by itself: at the fraction `grace` of its steps, at `reduction` times
    as many, and so on, a trial goes on only among the best 1 / `reduction` of those that came as far. `ended` is told
    in this process, once for each trial. A trial that a dead process cut off begins again. Once `stop_requested`,
    trials are told to save and leave, those that have not begun do not, and it returns when all have left.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray.tune

    from cluster.resources import board_here

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # `ended` says it in one line
    known, board = {trial.name: trial for trial in trials}, board_here()
    with tempfile.TemporaryDirectory(prefix="tilespin-tune-") as scratch:
        ray.tune.Tuner(
            ray.tune.with_resources(
                ray.tune.with_parameters(_trainable(), trials=known, board=board),
                {"cpu": 1, "gpu": gpus} if gpus else {"cpu": 1},
            ),
            param_space={"trial": ray.tune.grid_search(list(known))},
            tune_config=ray.tune.TuneConfig(
                metric="loss", mode="min", scheduler=_scheduler(known, grace, reduction), reuse_actors=False
            ),
            run_config=ray.tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                verbose=0,
                callbacks=[_callback(ended)],
                stop=_stopper(stop_requested, board, list(known)),
                failure_config=ray.tune.FailureConfig(max_failures=RETRIES),
                checkpoint_config=ray.tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()


def _trainable() -> type:
    from ray.tune import Trainable

    class Training(Trainable):
        """One trial, in a process of its own."""

        def setup(self, config: dict, trials: dict[str, Trial], board: Any) -> None:
            self.trial, self.signs = trials[config["trial"]], ExitStack()
            pulse = self.signs.enter_context(beating(Pulse(config["trial"], board)))
            self.left = pulse.leaving
            self.rows = iter(()) if self.left else self.trial.rows(*self.trial.args)
            self.last: dict[str, Any] = {"step": 0, "loss": float("inf")}

        def step(self) -> dict:
            try:
                row = next(self.rows, None)
            except Preempted:
                self.left = True
                return self._done()
            except Exception as error:
                if kind_of(error) != "final":
                    raise
                return self._done(error=cause_of(error))
            if row is None:
                return self._done()
            self.last = {"step": row["step"], "loss": row["loss"]}
            return self.last

        def _done(self, **more) -> dict:
            self.signs.close()
            return {**self.last, "left": self.left, "done": True, **more}

        def cleanup(self) -> None:
            close = getattr(self.rows, "close", None)  # which ends what the trial keeps open
            if close:
                close()
            self.signs.close()

    return Training


def _scheduler(known: dict[str, Trial], grace: float, reduction: float):
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    class EachGroupByItself(FIFOScheduler):
        """Tune has one scheduler for all trials, but the losses of two tasks say nothing of each other."""

        def __init__(self) -> None:
            super().__init__()
            self.of: dict[str, ASHAScheduler] = {}

        def group(self, trial):
            one = known[trial.config["trial"]]
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


def _stopper(stop_requested: Callable[[], bool], board: Any, names: list[str]):
    import ray
    from ray.tune.stopper import NoopStopper

    class OnRequest(NoopStopper):
        """Has trials leave by themselves, and stops what is left then: Tune kills who does not stop within 10 s."""

        def stop_all(self) -> bool:
            if not stop_requested():
                return False
            ray.get(board.leave.remote(names))
            signs = [sign for workers in ray.get(board.heard.remote()).values() for sign in workers.values()]
            return all(sign.ended or age > LOST for sign, age in signs)

        def __reduce__(self):
            return NoopStopper, ()  # as of callbacks, Tune keeps a copy

    return OnRequest()


def _callback(ended: Callable[[Ended], object]):
    from ray.tune import Callback

    class Tell(Callback):
        """Tells of the end of each trial."""

        def __init__(self) -> None:
            self.ended = ended

        def __reduce__(self):
            return Callback, ()  # Tune keeps a copy of all it was given, for a restart of its own that never comes

        def on_trial_complete(self, iteration, trials, trial, **info) -> None:
            result = trial.last_result
            if not result.get("left"):
                self.ended(Ended(trial.config["trial"], result["step"], result["loss"], result.get("error")))

        def on_trial_error(self, iteration, trials, trial, **info) -> None:
            result = trial.last_result or {}
            why = str(trial.get_pickled_error() or "its process died").strip().splitlines()
            self.ended(Ended(trial.config["trial"], result.get("step", 0), result.get("loss"), why[-1]))

    return Tell()
