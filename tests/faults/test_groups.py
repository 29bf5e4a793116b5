"""Several workers that train as one, on machines that go and come back."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from support.driver import Driver
from support.study_audit import EVERY, check_rows, encoders, learned, rows, saved

from benchmarks.harness.local_nodes import Machines
from benchmarks.harness.processes import wait_for

STEPS = 600
PATIENCE = 600.0  # seconds that anything may take on a machine that is busy otherwise


@pytest.fixture(scope="module")
def machines():
    with Machines(count=2, cpus=1) as machines:
        yield machines


def arguments(shapes: Path, storage: Path, workers: str) -> list:
    return [
        "pretrain",
        "rotnet",
        "--data",
        shapes,
        "--size",
        32,
        "--encoder",
        "convnet-plain",
        "--batch",
        120,
        "--steps",
        STEPS,
        "--lr",
        0.02,
        "--checkpoint-every",
        10,
        "--decode-threads",
        1,
        "--wandb",
        "off",
        "--workers",
        workers,
        "--storage",
        storage,
        "--name",
        "one",
        "--cluster-timeout",
        "3m",
    ]


def run_of(storage: Path) -> Path:
    return next(storage.glob("one/pretrain/*/config.json"), storage / "none" / "none").parent


def wait_for_steps(driver: Driver, storage: Path, more: int = EVERY, workers: int | None = None) -> None:
    """Until so many more have been taken, by `workers` if that is told."""
    start = last(storage)

    def there() -> bool:
        assert driver.running(), driver.said()
        newest = [row for row in rows(run_of(storage)) if "loss" in row][-1:]
        return any(row["step"] >= start + more and workers in (None, row["workers"]) for row in newest)

    try:
        wait_for(there, PATIENCE, f"{more} more steps by {workers or 'some'} workers")
    except TimeoutError as error:
        raise AssertionError(driver.said()) from error


def wait_for_rows_saved(storage: Path) -> None:
    """Until no fault can take back the rows that there are now."""
    newest = last(storage)
    wait_for(lambda: saved(run_of(storage)) >= newest, PATIENCE, f"a checkpoint of step {newest}")


def last(storage: Path) -> int:
    return max((row["step"] for row in rows(run_of(storage))), default=0)


@pytest.mark.faults
def test_two_workers_on_two_machines_lose_nothing(machines, shapes, tmp_path):
    """A worker is killed, one freezes, a raylet dies, a machine loses its power and comes back, Ray Train's controller
    is killed, the driver is: the weights are bit for bit those of two workers that were left alone."""
    with Driver(*arguments(shapes, tmp_path / "alone", "2"), env=machines.environment()) as driver:
        assert driver.wait(3 * PATIENCE) == 0, driver.said()
    storage, rng = tmp_path / "struck", random.Random(3)
    driver = Driver(*arguments(shapes, storage, "2"), env=machines.environment())
    try:
        for kind in (
            "worker killed",
            "raylet killed",
            "worker frozen",
            "power cut",
            "controller killed",
            "driver killed",
        ):
            wait_for_steps(driver, storage)
            machine = rng.choice(machines.working)
            pid, newest, began = machine.trains()[0], saved(run_of(storage)), time.monotonic()
            if kind.startswith("worker"):
                os.kill(pid, signal.SIGKILL if kind == "worker killed" else signal.SIGSTOP)
            elif kind == "controller killed":
                os.kill(machines.controllers()[0], signal.SIGKILL)
            elif kind == "driver killed":
                driver.kill()
                driver = Driver(*arguments(shapes, storage, "2"), env=machines.environment())
            else:
                machine.kill_raylet() if kind == "raylet killed" else machine.cut()
                machines.replace(machine)
            known = restarts(storage)
            wait_for(lambda: len(restarts(storage)) > len(known), PATIENCE, driver.said())  # noqa: B023
            restart = restarts(storage)[-1]
            assert restart["step"] >= newest
            took = time.monotonic() - began
            print(f"{kind}: went on from step {restart['step']} after {took:.1f} s; {restart['cause']}", flush=True)
        assert driver.wait(3 * PATIENCE) == 0, driver.said()
    finally:
        driver.__exit__()
    (alone,), (struck,) = (encoders(root / "one").values() for root in (tmp_path / "alone", storage))
    assert struck.digest == alone.digest and struck.training.restarts == 6
    assert learned(storage / "one") == learned(tmp_path / "alone" / "one")


def restarts(storage: Path) -> list[dict]:
    return [row for row in rows(run_of(storage)) if "restart" in row]


@pytest.mark.faults
def test_a_group_shrinks_and_grows_with_the_cluster(machines, tilespin, shapes, tmp_path):
    """--workers 1:2, while a machine goes and comes back: the batches are the same ones in the same order, so the
    losses are those of one worker, to rounding."""
    tilespin(*arguments(shapes, tmp_path / "alone", "0"))
    storage = tmp_path / "elastic"
    with Driver(*arguments(shapes, storage, "1:2"), env=machines.environment()) as driver:
        wait_for_steps(driver, storage, workers=2)
        wait_for_rows_saved(storage)
        machines.working[1].cut()
        began = time.monotonic()
        wait_for_steps(driver, storage, workers=1)
        print(f"one worker after {time.monotonic() - began:.1f} s", flush=True)
        machines.replace(machines.working[1])
        wait_for_steps(driver, storage, workers=2)
        print(f"two again after {time.monotonic() - began:.1f} s", flush=True)
        assert driver.wait(3 * PATIENCE) == 0, driver.said()
    check_rows(rows(run_of(storage)), STEPS)
    sizes = [row["workers"] for row in rows(run_of(storage)) if "loss" in row]
    assert [size for i, size in enumerate(sizes) if not i or sizes[i - 1] != size] == [2, 1, 2]
    one, other = (
        [row["loss"] for rows in learned(root / "one").values() for row in rows]
        for root in (storage, tmp_path / "alone")
    )
    assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.faults
@pytest.mark.parametrize("controller", [False, True], ids=["a worker's machine", "the controller's machine"])
def test_a_group_does_not_wait_for_a_machine_that_is_gone(machines, shapes, tmp_path, controller):
    """The worst order of events: a worker dies, so that the other's connection breaks at once, and Ray drops the
    machine, which does not answer, only later. The group goes on with one worker, long before a start of two workers
    would be given up; what the lost machine had reserved does not count either."""
    storage = tmp_path / "elastic"
    with Driver(*arguments(shapes, storage, "1:2"), env=machines.environment()) as driver:
        wait_for_steps(driver, storage, workers=2)
        there = [machine for machine in machines.working if bool(machine.controllers()) == controller]
        lost, began = (there or machines.working)[0], time.monotonic()
        for pid in lost.trains():
            os.kill(pid, signal.SIGKILL)
        lost.fall_silent()
        wait_for_steps(driver, storage, workers=1)
        took = time.monotonic() - began
        print(f"one worker after {took:.1f} s", flush=True)
        assert took < 240, driver.said()  # a fourth of it on an idle machine; 325 s if the start is waited for
    lost.cut()
    machines.replace(lost)
