"""A cluster of several machines that go, one by one, while work is done on them."""

import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from support.study_audit import saved

from benchmarks.harness.local_nodes import Machine, Machines
from benchmarks.harness.processes import wait_for
from cluster.job import Job, Outcome, Retrying
from cluster.scheduler import run_on_ray
from cluster.session import session
from jobs.config.recipe import PretrainConfig
from jobs.config.runtime import RuntimeConfig
from jobs.pretraining.run import Training, prepare_training
from jobs.pretraining.worker import run_training
from jobs.study.folder import Study
from jobs.study.metrics import read_rows
from ssl_core.tasks.rotnet import RotNet

STEPS, PACE = 50, 0.1  # and seconds that a step takes at least
PATIENCE = 180.0  # seconds that anything may take on a machine that is busy otherwise
FEATURES = 2 << 20  # bytes: more than what Ray sends along with a task


@pytest.fixture(scope="module")
def machines():
    with Machines(count=2, cpus=1) as machines:
        import ray  # which looks for the token that Machines sets

        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the machines get the program, not its tests
        yield machines


def slowly(one: Training, device: str) -> dict:
    real = RotNet.loss

    def loss(self, *args):
        time.sleep(PACE)
        return real(self, *args)

    with mock.patch.object(RotNet, "loss", loss):
        return run_training(one, device)


def train(marker: Path) -> int:
    marker.open("a").write("trained\n")
    return 1


def features(marker: Path, trained: int) -> np.ndarray:
    """Leaves a line with the machine's id each time."""
    import ray

    with marker.open("a") as file:
        file.write(ray.get_runtime_context().get_node_id() + "\n")
    return np.full(FEATURES, trained, np.uint8)


def judge(marker: Path, features: np.ndarray) -> int:
    """Takes long the first time."""
    if not marker.exists():
        marker.touch()
        time.sleep(100)
    return int(features.sum())


def machine_of(machines: Machines, job: str) -> Machine | None:
    return next((one for one in machines.working if any(said == f"ray::{job}" for _, said in one.workers())), None)


class Followed:
    """Works at a queue in a thread of its own, and keeps what it tells."""

    def __init__(self, jobs: list[Job]):
        self.seen: list[Retrying | Outcome] = []
        self.thread = threading.Thread(target=self._work, args=(jobs,), daemon=True)
        self.thread.start()

    def _work(self, jobs: list[Job]) -> None:
        for event in run_on_ray(jobs):
            self.seen.append(event)

    def of(self, job: str) -> list[Retrying | Outcome]:
        return [event for event in self.seen if event.name == job]

    def wait(self, job: str, seconds: float = PATIENCE) -> Retrying | Outcome:
        """The next that is told of `job`."""
        known = len(self.of(job))
        return wait_for(lambda: self.of(job)[known:], seconds, f"news of {job}")[0]


@pytest.mark.faults
def test_features_that_no_machine_holds_any_more_are_made_again(machines, tmp_path):
    """The judgment's machine falls silent, as behind a cut cable, and the one that made the features loses its power;
    a third one comes, and does it all."""
    trained, made, judging = tmp_path / "trained", tmp_path / "made", tmp_path / "judging"
    jobs = [
        Job("one", train, (trained,)),
        Job("features/one", features, (made,), needs=("one",), fetch=False, result_bytes=FEATURES),
        Job("linear/one", judge, (judging,), needs=("features/one",)),
    ]
    with session(address=machines.address):
        queue = Followed(jobs)
        silent = wait_for(lambda: judging.exists() and machine_of(machines, "linear/one"), PATIENCE, "a judgment")
        others = [one for one in machines.working if one is not silent and one.node() in made.read_text()]
        third = machines.add(wait=False)
        silent.fall_silent()
        for one in others:
            machines.lose(one)
        lost = queue.wait("linear/one")
        machines.lose(silent)
        queue.thread.join(PATIENCE)
    assert lost.fault.kind == "system" and lost.fault.cause == "its machine is gone"
    judged = queue.of("linear/one")[-1]
    assert judged.error is None and judged.value == FEATURES
    assert [line == third.node() for line in made.read_text().splitlines()] == [False, True] or len(
        machines.working
    ) > 1


@pytest.mark.faults
def test_a_training_moves_from_machine_to_machine(machines, shapes, tmp_path):
    """Its first machine is drained: it saves, leaves, and loses no step. The raylet of the second is killed: it goes on
    from its last checkpoint on a third one. The weights are those of a run left alone."""
    recipe = PretrainConfig(task=RotNet.Config(batch=16), data=str(shapes), size=32, steps=STEPS)
    study = Study.open(str(tmp_path), "study")
    study.describe()
    one = prepare_training(
        recipe, study, RuntimeConfig(checkpoint_every="10", wandb="off", decode_threads=1, workers="1")
    )
    with session(address=machines.address):
        queue = Followed([Job(one.name, slowly, (one, "cpu"))])
        if len(machines.working) < 2:
            machines.add(wait=False)
        wait_for(lambda: saved(one.folder), PATIENCE, "a checkpoint")
        first = machine_of(machines, one.name)
        machines.drain(first, 600)
        left = queue.wait(one.name)
        machines.add(wait=False)
        machines.lose(first)
        second = wait_for(lambda: machine_of(machines, one.name), PATIENCE, "the training goes on elsewhere")
        wait_for(lambda: saved(one.folder) > left.fault.step, PATIENCE, "a checkpoint of its own")
        second.kill_raylet()
        killed = queue.wait(one.name)
        queue.thread.join(PATIENCE)
    assert left.fault.kind == "preempted" and left.decision.retry
    assert killed.fault.kind == "system" and len(killed.fault.cause) < 120
    trained = queue.of(one.name)[-1]
    assert trained.error is None and trained.value.training.steps == STEPS
    drained, lost = (row for row in read_rows(one.folder / "metrics.jsonl") if "restart" in row)
    assert drained["step"] == left.fault.step, "the step at which it saved: none is lost"
    assert lost["step"] > drained["step"] and killed.fault.step - lost["step"] <= 10
    alone = replace(one, study=str(tmp_path / "alone"))
    Study(alone.study).describe()
    assert run_training(alone, "cpu").digest == trained.value.digest
