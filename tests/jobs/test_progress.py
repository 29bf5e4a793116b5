"""Progress in a log, where there is no terminal: a line now and then."""

import io
import threading
from dataclasses import replace

import pytest
from rich.console import Console

import jobs.execution.progress as progress
from cluster.job import Job, run_here
from jobs.config.recipe import PretrainConfig
from jobs.config.runtime import RuntimeConfig
from jobs.execution.forecast import RemainingTime, format_seconds
from jobs.execution.progress import ProgressMonitor
from jobs.pretraining.run import prepare_training
from jobs.pretraining.worker import run_training
from jobs.study.folder import Study
from jobs.study.metrics import training_rows
from ssl_core.tasks.rotnet import RotNet


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


def test_how_long_all_trainings_take_by_the_first_steps():
    """Two run at once at 20 ms a step; of the three that wait, one is of a known task and the others as long as the
    mean."""
    remaining, runs = RemainingTime(), {"rotnet-1": 100, "jigsaw-1": 300, "rotnet-2": 200, "pirl-1": 7, "npid-1": 9}
    assert remaining.estimate(runs, {}) is None
    row = {"images": 80, "step": 10, "images_per_second": 400.0}  # 8 images a step
    left = remaining.estimate(runs, {"rotnet-1": row, "jigsaw-1": row, "over": row})
    assert left == pytest.approx((90 + 290 + 200 + 2 * (100 + 300) / 2) * 0.02 / 2)
    del runs["rotnet-1"], runs["jigsaw-1"]
    assert remaining.estimate(runs, {}) == pytest.approx((200 + 2 * (100 + 300) / 2) * 0.02)


def test_a_log_says_once_how_long_all_take(clock):
    out = io.StringIO()
    watch = ProgressMonitor(Console(file=out, width=40), {"rotnet-1": 100, "rotnet-2": 100}, 2, None)
    watch.report("rotnet-1", {**row(10), "images_per_second": 8.0})
    for clock[0] in range(20):
        watch._forecast()
    assert out.getvalue() == "about 3.2 min of training left, by the speed of the first steps\n"
    alone = ProgressMonitor(Console(file=out, width=40), {"rotnet-1": 100}, 1, None)
    alone.report("rotnet-1", row(10))
    for clock[0] in range(20, 40):
        alone._forecast()
    assert len(out.getvalue().splitlines()) == 1, "its own lines say it"


def test_while_only_evaluations_are_left_nothing_is_said_of_training():
    """Also in a log, where a line is due after the last training has ended."""
    out = io.StringIO()
    watch = ProgressMonitor(Console(file=out, width=40), {"rotnet-1": 100, "rotnet-2": 100}, 9, None)
    watch.report("rotnet-1", row(10))
    watch._forecast()
    assert "of training left" in watch.progress.tasks[0].fields["speed"]
    for name in ("rotnet-1", "rotnet-2"):
        watch.job_ended(name, "")
    watch.forecast_at = 0.0
    watch._forecast()
    assert watch.progress.tasks[0].fields["speed"] == "" and out.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0.4 s"), (99, "99 s"), (150, "2.5 min"), (5900, "98 min"), (7200, "2 h"), (4e5, "111 h")],
)
def test_times_have_two_digits(seconds, text):
    assert format_seconds(seconds) == text


def test_reported_metrics_come_into_a_log():
    """The same through the thread that shows them; what ended is one job less to follow, and others are not shown."""
    out = io.StringIO()
    with ProgressMonitor(Console(file=out, width=40), {"run": 10}, 1, None) as watch:
        watch.report("other", row(3))
        watch.report("run", row(10, waited=0.5))
        for _ in range(2000):
            if out.getvalue() or watch.stopped.wait(0.05):
                break
        watch.job_ended("run", "trained   run")
    assert out.getvalue() == (
        "run: step 10 of 10  loss 0.500  1,234 images/s  50% of the time waiting for data\ntrained   run\n"
    )


def test_training_does_not_wait_for_a_terminal_that_is_full():
    """What is shown stops, as in `| less`; what reports goes on."""
    entered, leave = threading.Event(), threading.Event()

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            entered.set()
            leave.wait(60)
            return len(text)

    with ProgressMonitor(Console(file=Full(), width=40), {"run": 10}, 1, None) as watch:
        watch.report("run", row(5))
        assert entered.wait(60)
        watch.report("run", row(6))
        assert not leave.is_set()
        leave.set()


def test_rows_of_a_training_are_reported(shapes, tmp_path):
    """In this process at once, as they are in metrics.jsonl."""
    study, found = Study.open(str(tmp_path), "x"), []
    study.describe()
    recipe = PretrainConfig(task=RotNet.Config(batch=8), data=str(shapes), size=32, steps=3)
    training = replace(prepare_training(recipe, study, RuntimeConfig(wandb="off")), log_every=1)
    job = Job(training.name, run_training, (training, "cpu"))
    (outcome,) = run_here([job], on_metrics=lambda name, metrics: found.append((name, dict(metrics))))
    assert not outcome.error, outcome.error
    assert found == [(training.name, one) for one in training_rows(training.folder / "metrics.jsonl")]
    assert [one["step"] for _, one in found] == [1, 2, 3]
