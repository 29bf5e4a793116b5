"""The queue, in this process and on a real Ray."""

import os
import signal
from pathlib import Path

import pytest

from cluster.queue import Job, run_here, run_on_ray
from cluster.session import session


def add(x: int, *more: int) -> int:
    return x + sum(more)


def fail() -> None:
    raise ValueError("this one is broken")


def die_once(marker: str) -> int:
    """Takes its whole process with it the first time, as a machine that is switched off would."""
    path = Path(marker)
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 7


def graph(tmp_path) -> list[Job]:
    return [
        Job("one", add, (1,), fetch=False),
        Job("two", add, (2,), needs=("one",)),
        Job("bad", fail),
        Job("after bad", add, (1,), needs=("bad",)),
        Job("after that", add, (1,), needs=("after bad",)),
        Job("three", add, (3,), needs=("one", "two")),
    ]


def check(outcomes: dict) -> None:
    assert outcomes["two"].value == 3 and outcomes["three"].value == 3 + 1 + 3
    assert "this one is broken" in outcomes["bad"].error and outcomes["bad"].because is None
    for name in ("after bad", "after that"):
        assert outcomes[name].because == "bad" and "this one is broken" in outcomes[name].error


def test_graph_in_this_process(tmp_path):
    """A failing job takes down only the jobs that need it."""
    outcomes = {o.name: o for o in run_here(graph(tmp_path))}
    assert len(outcomes) == 6
    check(outcomes)


@pytest.fixture(scope="module")
def ray_session():
    with session(cpus=2) as resources:
        assert resources["CPU"] == 2
        yield


def test_graph_on_ray(ray_session, tmp_path):
    outcomes = {o.name: o for o in run_on_ray(graph(tmp_path))}
    assert len(outcomes) == 6 and outcomes["one"].value is None
    check(outcomes)


def test_killed_worker_is_replaced(ray_session, tmp_path):
    """A job whose process is killed runs again and counts once."""
    again, outcome = run_on_ray([Job("mortal", die_once, (str(tmp_path / "died"),))])
    assert again.fault.kind == "system" and again.attempt == 2
    assert outcome.value == 7 and outcome.error is None
    assert (tmp_path / "died").exists()


def test_jobs_start_in_order(ray_session, tmp_path):
    """With one slot's worth of jobs each, the first that can start does."""
    ends = [o.name for o in run_on_ray([Job(str(i), add, (i,), cpus=2) for i in range(6)])]
    assert ends == [str(i) for i in range(6)]
