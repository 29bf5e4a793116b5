"""benchmarks/neighbors.py: processes that are stopped between their turns, and what the turns add up to."""

import os
import signal
import time

import pytest

from benchmarks import neighbors
from benchmarks.harness import processes
from benchmarks.harness.counted_run import main as count
from benchmarks.harness.counted_run import read_count


@pytest.fixture
def busy(tmp_path):
    """A process that keeps a core busy, stopped."""
    running = neighbors.start(["-c", neighbors.NEIGHBOR], tmp_path / "log")
    os.kill(running.pid, signal.SIGSTOP)
    yield running
    processes.kill(running.pid)
    running.wait()


@pytest.mark.slow
def test_a_process_runs_in_its_turn_alone(busy):
    def used() -> float:
        return processes.seconds(busy.pid)

    with neighbors.awake(busy):
        processes.wait_for(lambda: used() > 0.2, 60, "a busy process uses no processor")
    before = used()
    time.sleep(0.3)
    assert used() <= before + 0.02


class Turns:
    """Rates as a test has them: half as fast beside each neighbor, and spinning twice as slow again."""

    def steps(self, name: str, count: int) -> float:
        return 8.0 / 2**count / (2**count if name == "spinning" else 1)

    def left(self, count: int) -> float:
        return 1 / (1 + count)

    def evaluation(self, name: str, count: int) -> float:
        return 10.0 if name == "sleeping" else 30.0


def test_turns_become_a_line(capsys):
    quiet, found = (neighbors.measure(Turns(), count, rounds=6, evaluations=1) for count in (0, 1))
    assert quiet["sleeping"] == quiet["spinning"] == 8 and quiet["sleeping_over_spinning"]["median"] == 1
    assert (found["sleeping"], found["spinning"], found["left"]) == (4, 2, 0.5)
    assert found["evaluation"] == {"sleeping": 10, "spinning": 30}
    neighbors.print_line(found, quiet, batch=10)
    said = capsys.readouterr().out
    assert "50% of the cores left" in said and "sleeping     40 (100%)" in said and "spinning     20 (50%)" in said
    assert "ratio 2.00" in said


@pytest.mark.slow
def test_a_training_keeps_the_number_of_its_steps(tmp_path, monkeypatch):
    from benchmarks.loader import make_photos

    photos = make_photos(tmp_path / "photos", count=12)
    run = ["pretrain", "rotnet", "--data", str(photos), "--size", "32", "--batch", "4", "--steps", "7"]
    count(tmp_path / "count", [*run, "--wandb", "off", "--storage", str(tmp_path / "runs"), "--name", "s"])
    assert read_count(tmp_path / "count") == 7 and read_count(tmp_path / "none") == 0
