"""The queue, in this process and on a real Ray."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from benchmarks.harness.processes import below, wait_for
from cluster.heartbeat import HeartbeatRegistry, current
from cluster.job import Job, run_here
from cluster.scheduler import run_on_ray
from cluster.session import session
from cluster.worker_group import run_worker_group

pytestmark = pytest.mark.ray


def add(x: int, *more: int) -> int:
    return x + sum(more)


def received(*values: int | None) -> list:
    return [*values]


def fail() -> None:
    raise ValueError("this one is broken")


def die_once(marker: str, *needed) -> int:
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
        Job("after all", received, needs=("two", "bad", "after that"), needs_success=False),
    ]


def check(outcomes: dict) -> None:
    assert outcomes["after all"].value == [3, None, None] and outcomes["after all"].error is None
    assert outcomes["two"].value == 3 and outcomes["three"].value == 3 + 1 + 3
    assert "this one is broken" in outcomes["bad"].error and outcomes["bad"].failed_need is None
    for name in ("after bad", "after that"):
        assert outcomes[name].failed_need == "bad" and "this one is broken" in outcomes[name].error


def test_graph_in_this_process(tmp_path):
    """A failing job takes down only the jobs that need it."""
    outcomes = {o.name: o for o in run_here(graph(tmp_path))}
    assert len(outcomes) == 7
    check(outcomes)


@pytest.fixture(scope="module")
def ray_session():
    with session(cpus=2) as resources:
        assert resources["CPU"] == 2
        yield


def test_graph_on_ray(ray_session, tmp_path):
    outcomes = {o.name: o for o in run_on_ray(graph(tmp_path))}
    assert len(outcomes) == 7 and outcomes["one"].value is None
    check(outcomes)


def test_killed_worker_is_replaced(ray_session, tmp_path):
    """A job whose process is killed runs again and counts once."""
    again, outcome = run_on_ray([Job("mortal", die_once, (str(tmp_path / "died"),))])
    assert again.fault.kind == "system" and again.attempt == 2
    assert outcome.value == 7 and outcome.error is None
    assert (tmp_path / "died").exists()


def wait_until(path: str) -> bool:
    """Waits for a file, as long as a test may take."""
    return wait_for(Path(path).exists, 100, path) or True


def test_a_job_may_begin_before_what_it_needs_has_ended(ray_session, tmp_path, monkeypatch):
    """It is asked again until it can: the one that it needs ends only when it has run."""
    monkeypatch.setattr("cluster.scheduler.READY_S", 0.1)
    asked, done = [], tmp_path / "done"
    ready = lambda: bool(asked.append(1)) or len(asked) > 2  # noqa: E731
    jobs = [
        Job("training", wait_until, (str(done),)),
        Job("early", received, (1,), needs=("training",), ready=ready),
        Job("of early", made, (str(done), 1), needs=("early",), needs_success=False),
    ]
    assert {o.name: o.value for o in run_on_ray(jobs)} == {"training": True, "early": [1, None], "of early": bytes(1)}


def test_a_job_that_is_ready_runs_although_what_it_needs_has_failed(ray_session):
    jobs = [
        Job("bad", fail),
        Job("ready", received, (1,), needs=("bad",), ready=lambda: True),
        Job("not ready", received, (1,), needs=("bad",), ready=lambda: False),
    ]
    for run in (run_here, run_on_ray):
        outcomes = {o.name: o for o in run(jobs)}
        assert outcomes["ready"].value == [1, None] and outcomes["not ready"].failed_need == "bad"


def made(log: str, size: int, *needed) -> bytes:
    """Notes that it was made."""
    with open(log, "a") as file:
        file.write("x")
    return bytes(size)


def test_what_was_lost_is_made_again_but_not_what_it_was_made_from(ray_session, tmp_path, monkeypatch):
    """A judgment's process dies, and with its machine the features: they are made anew, their training is not, and
    each job's end is told once."""
    monkeypatch.setattr("cluster.resources.ClusterResources.is_available", lambda *_: False)
    logs = {name: str(tmp_path / name) for name in ("training", "features")}
    jobs = [
        Job("training", made, (logs["training"], 10)),
        Job("features", made, (logs["features"], 200_000), needs=("training",), fetch=False),
        Job("judged", die_once, (str(tmp_path / "died"),), needs=("features",)),
    ]
    told = list(run_on_ray(jobs))
    assert [(type(one).__name__, one.name) for one in told] == [
        ("Outcome", "training"),
        ("Outcome", "features"),
        ("Retrying", "judged"),
        ("Outcome", "judged"),
    ]
    assert told[-1].value == 7
    assert (Path(logs["training"]).read_text(), Path(logs["features"]).read_text()) == ("x", "xx")


def report_until(marker: str) -> int:
    """Reports metrics at each step, until it is told that somebody has seen some."""
    step = 0
    while not Path(marker).exists():
        step += 1
        current().beat(step)
        current().report({"step": step, "loss": 1 / step})
        time.sleep(0.05)
    return step


def test_metrics_come_with_the_heartbeats(tmp_path):
    """While the job runs, without a file."""
    marker, found = tmp_path / "seen", []

    def on_metrics(name: str, metrics: dict) -> None:
        found.append((name, metrics))
        if len({one["step"] for _, one in found}) > 1:
            marker.touch()

    (outcome,) = run_on_ray([Job("reports", report_until, (str(marker),))], on_metrics=on_metrics)
    assert not outcome.error and {name for name, _ in found} == {"reports"}
    assert all(one["loss"] == 1 / one["step"] for _, one in found) and found[-1][1]["step"] <= outcome.value


def test_who_has_done_its_part_is_not_missed():
    """One that finished early is silent while others still work; one of a larger group before is forgotten."""
    registry = HeartbeatRegistry()
    for worker in range(3):
        registry.beat("job", worker, "node", 100 + worker, 5)
    registry.end("job", 1)
    assert [sign.ended for sign, _ in registry.last_beats()["job"].values()] == [False, True, False]
    registry.set_group("job", "a room")
    assert list(registry.last_beats()["job"]) == [0]
    registry.request_scale_up("job")
    assert registry.beat("job", 1, "node", 7, 6) is True and registry.has_workers("job")
    assert registry.beat("job", 0, "node", 7, 6) is False, "who starts the larger group stays"
    registry.finish_scale_up("job")
    assert not registry.has_workers("job") and registry.beat("job", 1, "node", 7, 6) is False
    registry.request_stop(["job"])
    registry.finish_scale_up("job")
    assert registry.beat("job", 0, "node", 7, 6) is True, "what the driver wants outlasts it"
    assert registry.begin_attempt("job") == "a room" and registry.begin_attempt("job") is None
    assert registry.last_beats() == {} and registry.beat("job", 0, "node", 7, 6) is False


def test_who_has_nothing_to_save_is_not_waited_for(ray_session, tmp_path):
    """When all are told to leave, as a study is by Ctrl-C while it evaluates."""
    begun = tmp_path / "begun"
    assert list(run_on_ray([Job("probe", endless, (str(begun),)), Job("next", add, (1,), cpus=2)], begun.exists)) == []


def endless(begun: str) -> None:
    Path(begun).touch()
    threading.Event().wait()


def test_jobs_start_in_order(ray_session, tmp_path):
    """With one slot's worth of jobs each, the first that can start does."""
    ends = [o.name for o in run_on_ray([Job(str(i), add, (i,), cpus=2) for i in range(6)])]
    assert ends == [str(i) for i in range(6)]


def two_together(folder: Path) -> int:
    return run_worker_group(wait_once, folder, workers=(2, 2), gpu=False, name="two", logs=folder / "logs", timeout=120)


def wait_once(folder: Path, device: str) -> int:
    """Works without end, but not again after a fault."""
    (folder / f"{os.getpid()}.pid").touch()
    while not current().faults:
        time.sleep(0.1)
    return 7


@pytest.mark.faults
def test_workers_whose_controller_is_lost_give_up_their_room(ray_session, tmp_path):
    """They would go on beside those that take their place, which have no room meanwhile: Ray Train's own way to end
    them needs a dashboard, and this cluster has none."""
    told, workers = [], lambda: {int(path.stem) for path in tmp_path.glob("*.pid")}
    job = Job("two", two_together, (tmp_path,), cpus=2, starts_workers=True)
    queue = threading.Thread(target=lambda: told.extend(run_on_ray([job])), daemon=True)
    queue.start()
    first = wait_for(lambda: len(workers()) == 2 and workers(), 120, "two workers")
    controller = next(pid for pid, said in below(os.getpid()) if "TrainController" in said)
    os.kill(controller, signal.SIGKILL)
    queue.join(120)
    assert [type(one).__name__ for one in told] == ["Retrying", "Outcome"]
    assert told[0].fault.kind == "system" and told[-1].value == 7
    assert len(workers()) == 4 and not first & {pid for pid, _ in below(os.getpid())}
