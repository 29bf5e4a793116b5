"""The benchmarks of scaling and checkpoints: their statistics on known numbers, and both for real, briefly."""

import json
import os
import subprocess
import sys
import time
from math import comb

import numpy as np
import pytest
from support.command import run_forked

from benchmarks import checkpoints
from benchmarks.harness import abba as pairs
from benchmarks.harness import processes


def run(module: str, *words, seconds: int = 3600) -> subprocess.CompletedProcess:
    return run_forked(*words, module=module, timeout=seconds)


def test_a_steady_drift_cancels_within_a_pair():
    drifting = [1.0 + 0.05 * i for i in range(8)]
    slower = [1.5 * t if way == "B" else t for t, way in zip(drifting, pairs.order(2))]
    assert pairs.ratios(drifting) == pytest.approx([1, 1])
    assert pairs.ratios(slower) == pytest.approx([1.5, 1.5])
    with pytest.raises(ValueError, match="whole ABBA pairs"):
        pairs.ratios(drifting[:6])


def test_the_interval_is_that_of_the_sign_test():
    seven = pairs.interval([5, 1, 7, 3, 2, 6, 4])
    assert seven == {"median": 4, "low": 1, "high": 7, "level": 1 - 2 / 2**7}
    # the published table of the sign test: of 21 values the 6th from either end
    many = pairs.interval(list(range(1, 22)))
    assert (many["low"], many["median"], many["high"]) == (6, 11, 16)
    assert many["level"] == pytest.approx(1 - 2 * sum(comb(21, i) for i in range(6)) / 2**21) and many["level"] >= 0.95
    with pytest.raises(ValueError, match="too few"):
        pairs.interval([1, 2, 3, 4, 5])


def test_the_interval_holds_the_median_as_often_as_it_says():
    chance = np.random.default_rng(0)
    found = [pairs.interval(list(chance.lognormal(size=9))) for _ in range(2000)]  # whose median is 1
    held = np.mean([one["low"] <= 1 <= one["high"] for one in found])
    assert held == pytest.approx(found[0]["level"], abs=0.015)


def test_a_frozen_tree_stands_still_and_goes_on():
    """A shell and what it started: nothing of it runs while it is frozen, all of it afterwards."""
    child = "import itertools, sys\nfor i in itertools.count(): print(i, flush=True); sys.stdin.readline()"
    shell = subprocess.Popen(
        ["bash", "-c", f'"{sys.executable}" -u -c "{child}"; true'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert shell.stdout.readline() == "0\n"
        stopped = processes.freeze(shell.pid)
        assert len(stopped) == 2 and processes.named(shell.pid, "itertools")[-1] == stopped[-1]
        shell.stdin.write("\n")
        shell.stdin.flush()
        os.set_blocking(shell.stdout.fileno(), False)
        time.sleep(0.3)
        assert shell.stdout.readline() == ""
        os.set_blocking(shell.stdout.fileno(), True)
        processes.thaw(stopped)
        assert shell.stdout.readline() == "1\n"
    finally:
        processes.kill(shell.pid)
        assert shell.wait(60) == -9
    assert processes.named(shell.pid, "itertools") == []


def test_what_checkpoints_cost_is_found_in_known_moments():
    """Steps of 10 ms; each due step is 4 ms longer, and the one after it, beside the writing, 1 ms."""
    every, count = 5, 6
    clock = checkpoints.Alternating(count, every)
    taken = [0.010] * (checkpoints.WARM + 4 * count * every + 1)
    due = [i for i in range(len(taken)) if clock.due(i + 1)]
    for i in due:
        taken[i] += 0.004
        taken[i + 1] += 0.001
    moments = list(np.concatenate([[0.0], np.cumsum(taken)]) + 100)
    found = checkpoints.said(moments, count, every, [{"copied": 0.003, "written": 0.02, "bytes": 8}] * len(due))
    assert len(due) == 2 * count
    assert found["ratios"] == pytest.approx([1.1] * count) and not found["holds"]
    assert (found["step_ms"], found["stall_ms"]) == pytest.approx((10, 4))


@pytest.mark.slow
def test_checkpoints_run(shapes, tmp_path):
    words = ("--data", shapes, "--size", 16, "--batch", 2, "--every", 12, "--pairs", 6, "--into", tmp_path)
    done = run("benchmarks.checkpoints", *words)
    assert done.returncode == 0, done.stderr
    result = json.loads(next(tmp_path.glob("*-checkpoints-convnet-*.json")).read_text())
    assert len(result["ratios"]) == 6 and result["bytes"] > 1e6
    assert 0 < result["copied_ms"] < 1000 and min(result["written_ms"], result["step_ms"]) > 0
    low, median, high = (result["interval"][name] for name in ("low", "median", "high"))
    assert min(result["ratios"]) == low <= median <= high == max(result["ratios"])
    assert "of 6 ABBA pairs" in done.stdout


@pytest.mark.ray
def test_scaling_runs(shapes, tmp_path):
    """Ray and torchrun in turns, and one and two workers under torchrun; both draw and say what they found."""
    words = (
        "--data",
        shapes,
        "--batch",
        8,
        "--steps",
        2,
        "--warm",
        1,
        "--pairs",
        6,
        "--rounds",
        6,
        "--workers",
        1,
        2,
        "--pair-workers",
        1,
        "--launcher",
        "torchrun",
        "--into",
        tmp_path,
    )
    done = run("benchmarks.scaling", *words)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*-scaling-*.json")
    result = json.loads(path.read_text())
    assert set(result["pairs"]["step_ms"]) == {"torchrun", "ray"} and len(result["pairs"]["ratios"]) == 6
    assert 0.5 < result["pairs"]["processors"]["median"] < 2  # the same work
    shapes = [(line["workers"], line["kind"], line["batch"]) for line in result["scaling"]]
    assert shapes == [(1, "one", 8), (2, "strong", 8), (2, "weak", 16)]
    assert all(line["images_per_second"] > 0 for line in result["scaling"])
    assert result["scaling"][0]["gain"]["median"] == 1
    assert path.with_suffix(".svg").read_text().startswith("<?xml")
