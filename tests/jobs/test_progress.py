"""Progress in a log, where there is no terminal: a line now and then."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

import jobs.execution.progress as progress
from jobs.execution.progress import ProgressMonitor


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [0.5]  # a machine that was just started
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def row(step: int, waited: float = 0.0) -> dict:
    return {"step": step, "loss": 0.5, "images": 8 * step, "images_per_second": 1234.5, "waited": waited}


def lines(clock: list[float], rows: list[tuple[float, int]], steps: int) -> list[str]:
    """What is said if at each time the run has come to that step."""
    out = io.StringIO()
    watch = ProgressMonitor(Console(file=out, width=40), {}, 1, None)
    for clock[0], step in rows:
        watch._show("run", row(step), steps)
    return out.getvalue().splitlines()


def test_a_line_for_each_tenth_but_not_more_often_than_every_few_seconds(clock):
    said = lines(clock, [(t, 10 * t) for t in range(1, 100)], 1000)
    assert said[0] == "run: step 10 of 1,000, 6.4 s left  loss 0.500  1,234 images/s"
    assert [line.split()[2] for line in said] == [str(n) for n in range(10, 1000, 100)]
    assert len(lines(clock, [(t / 10, 10 * t) for t in range(1, 100)], 1000)) == 2


def test_a_line_a_minute_where_a_tenth_takes_long(clock):
    assert len(lines(clock, [(t, t) for t in range(1, 3601)], 1_000_000)) == 60
    assert len(lines(clock, [(t, 7) for t in range(1, 3601)], 1_000_000)) == 1, "nothing has changed"


def test_watch_follows_a_file_into_a_log(tmp_path: Path):
    """The same through the thread that reads metrics.jsonl; what ended is one job less to follow."""
    out = io.StringIO()
    metrics = tmp_path / "metrics.jsonl"
    with ProgressMonitor(Console(file=out, width=40), {"run": (metrics, 10)}, 1, None) as watch:
        metrics.write_text(json.dumps(row(10, waited=0.5)) + "\n")
        for _ in range(2000):
            if out.getvalue() or watch.stopped.wait(0.05):
                break
        watch.job_ended("run", "trained   run")
    assert out.getvalue() == (
        "run: step 10 of 10  loss 0.500  1,234 images/s  50% of the time waiting for data\ntrained   run\n"
    )
