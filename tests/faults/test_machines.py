"""A cluster of several machines that go, one by one, while work is done on them."""

import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from faults.evidence import saved
from faults.machines import Machine, Machines
from faults.processes import wait_for

import jobs.training as training
from cluster.queue import Again, Job, Outcome, run_on_ray
from cluster.session import session
from jobs.layout import Study
from jobs.recipe import Recipe
from jobs.rows import rows
from jobs.where import Where
from ssl_core.tasks.rotnet import RotNet

STEPS, PACE = 60, 0.15  # and seconds that a step takes at least
FEATURES = 2 << 20  # bytes: more than what Ray sends along with a task


@pytest.fixture(scope="module")
def machines():
    with Machines(count=3, cpus=1) as machines:
        import ray  # which looks for the token that Machines sets

        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the machines get the program, not its tests
        yield machines


def slowly(one: training.Training, device: str) -> dict:
    real = RotNet.loss

    def loss(self, *args):
        time.sleep(PACE)
        return real(self, *args)

    with mock.patch.object(RotNet, "loss", loss):
        return training.run(one, device)


def features(marker: Path) -> np.ndarray:
    with marker.open("a") as file:
        file.write("made\n")
    return np.ones(FEATURES, np.uint8)


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
        self.seen: list[Again | Outcome] = []
        self.thread = threading.Thread(target=self._work, args=(jobs,), daemon=True)
        self.thread.start()

    def _work(self, jobs: list[Job]) -> None:
        for event in run_on_ray(jobs):
            self.seen.append(event)

    def of(self, job: str) -> list[Again | Outcome]:
        return [event for event in self.seen if event.name == job]

    def wait(self, job: str, seconds: float = 60) -> Again | Outcome:
        """The next that is told of `job`."""
        known = len(self.of(job))
        return wait_for(lambda: self.of(job)[known:], seconds, f"news of {job}")[0]


def test_machines_go_one_by_one_and_the_work_goes_on(machines, shapes, tmp_path):
    """The training's machine is drained: it saves, leaves, and loses no step. The judgement's machine falls silent,
    and with it go the features: they are made again, elsewhere. Then the raylet of the training's new machine is
    killed: it goes on from its last checkpoint on the machine that is left. The weights are those of a run left alone."""
    recipe = Recipe(task=RotNet.Config(batch=16), data=str(shapes), size=32, steps=STEPS)
    study = Study.at(str(tmp_path), "study")
    study.describe()
    one = training.prepare(recipe, study, Where(checkpoint_every="10", tracking="off", threads=1, workers="1"))
    made, judging = tmp_path / "made", tmp_path / "judging"
    jobs = [
        Job(one.name, slowly, (one, "cpu")),
        Job("features/one", features, (made,), fetch=False, holds=FEATURES),
        Job("linear/one", judge, (judging,), needs=("features/one",)),
    ]
    with session(address=machines.address):
        queue = Followed(jobs)
        wait_for(lambda: list(one.folder.glob("checkpoints/*.json")), 60, "a checkpoint")
        first = machine_of(machines, one.name)
        machines.drain(first, 60)
        left = queue.wait(one.name)
        assert left.fault.kind == "preempted" and left.decision.again, left
        machines.lose(first)

        second = machine_of(machines, "linear/one")
        assert judging.exists() and second is not first
        second.fall_silent()
        lost = queue.wait("linear/one")
        assert lost.fault.kind == "system" and lost.fault.cause == "its machine is gone"
        machines.lose(second)
        machines.add(wait=False)

        third = wait_for(lambda: machine_of(machines, one.name), 60, "the training goes on elsewhere")
        wait_for(lambda: saved(one.folder) > left.fault.step, 60, "a checkpoint of its own")
        third.kill_raylet()
        killed = queue.wait(one.name)
        assert killed.fault.kind == "system" and len(killed.fault.cause) < 120, killed
        queue.thread.join(120)
        assert not queue.thread.is_alive(), queue.seen
    judged, trained = queue.of("linear/one")[-1], queue.of(one.name)[-1]
    assert judged.error is None and judged.value == FEATURES
    assert trained.error is None and trained.value["steps"] == STEPS and trained.value["restarts"] == 2
    restarts = [row for row in rows(one.folder / "metrics.jsonl") if "restart" in row]
    assert restarts[0]["step"] == left.fault.step, "the step at which it saved: none is lost"
    assert killed.fault.step - 11 <= restarts[1]["step"]
    alone = replace(one, study=str(tmp_path / "alone"))
    Study(alone.study).describe()
    assert training.run(alone, "cpu")["digest"] == trained.value["digest"]
    assert made.read_text().splitlines() == ["made"] * 2
