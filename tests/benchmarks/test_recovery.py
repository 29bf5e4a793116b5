"""The benchmark of recovery: the simulation against its formula and the literature, and what is read off a run."""

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from support.command import run_forked

from benchmarks import goodput, recovery
from benchmarks.goodput import Parts
from benchmarks.harness import observed_run


@pytest.mark.parametrize(
    ("parts", "mttf", "every"),
    [
        (Parts(5, 0, (60,)), 3600, 180),
        (Parts(1, 10, (60,)), 600, 100),
        (Parts(0.01, 0.05, (40,)), 7200, 10),
        (Parts(20, 100, (300,)), 900, 100),  # half of the time is lost
    ],
)
def test_the_simulation_comes_to_the_formula(parts, mttf, every):
    simulated = goodput.simulate(parts, mttf, every, 100_000, seed=3)
    assert simulated == pytest.approx(goodput.formula(parts, mttf, every), abs=0.003)


def test_the_formula_is_dalys_where_checkpoints_are_safe_at_once():
    """Daly (2006): M exp(R / M) (exp((tau + delta) / M) - 1) seconds for each tau."""
    from math import exp

    stall, restart, mttf, every = 5.0, 60.0, 900.0, 120.0
    wall = mttf * exp(restart / mttf) * (exp((every + stall) / mttf) - 1)
    assert goodput.formula(Parts(stall, 0, (restart,)), mttf, every) == pytest.approx(every / wall)


@pytest.mark.parametrize("stall", [0.1, 5, 60])
def test_dalys_interval_is_the_best(stall):
    """To a tenth of a per cent, where Young's is longer; without faults both are for ever."""
    mttf, parts = 3600.0, Parts(stall, 0, (30,))
    every = [1.05**i for i in range(250)]
    best = max(goodput.formula(parts, mttf, one) for one in every)
    assert goodput.formula(parts, mttf, goodput.daly(stall, mttf)) == pytest.approx(best, rel=1e-3)
    assert goodput.daly(stall, mttf) < goodput.young(stall, mttf) == (2 * stall * mttf) ** 0.5


def test_restarts_of_different_lengths_cost_what_they_cost():
    even = goodput.simulate(Parts(0.1, 0, (30, 30)), 1000, 50, 100_000)
    mixed = goodput.simulate(Parts(0.1, 0, (0, 60)), 1000, 50, 100_000)
    assert mixed == pytest.approx(even, abs=0.004)  # the mean decides, while faults during restarts are rare
    assert goodput.simulate(Parts(0.1, 0, (60, 60)), 1000, 50, 100_000) < even - 0.02


@pytest.mark.slow
def test_goodput_runs_on_measured_parts(tmp_path):
    """From results of the other benchmarks, as they write them, to a table and a plot."""
    stall = {
        "interval": {"median": 1.004},
        "every": 50,
        "step_ms": 100.0,
        "stall_ms": 3.0,
        "copied_ms": 1.0,
        "written_ms": 40.0,
    }
    faults = [
        {"fault": "worker killed", "resumed": 20.0},
        {"fault": "machine lost", "resumed": 40.0},
        {"fault": "driver told to leave, retyped", "resumed": 900.0},
    ]
    (tmp_path / "2026-01-01-checkpoints-convnet-cpu.json").write_text(json.dumps(stall))
    (tmp_path / "2026-01-01-recovery-cpu.json").write_text(json.dumps({"faults": faults}))
    options = ("--results", tmp_path, "--into", tmp_path, "--faults", 2000)
    done = run_forked(*options, module="benchmarks.goodput")
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*-goodput-*.json")
    result = json.loads(path.read_text())
    assert result["simulation"] and result["restarts"] == [20, 40] and result["stall"] == pytest.approx(0.02)
    for lines in result["scenarios"].values():
        good = [line["formula"] for line in lines]
        assert [line["gpus"] for line in lines] == list(goodput.GPUS) and good == sorted(good, reverse=True)
        assert all(line["simulated"] == pytest.approx(line["formula"], abs=0.02) for line in lines)
        assert all(line["formula"] >= max(line["minutes_10"], line["hours_1"]) for line in lines)
    assert "simulated" in done.stdout and path.with_suffix(".svg").exists()


# A driver that counts steps 20 times a second, checkpoints every 10, and restarts where it is told in a file "hurt"
DRIVER = """
import json, os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
run = folder / "study/pretrain/rotnet-1"
run.mkdir(parents=True, exist_ok=True)
rows = run / "metrics.jsonl"
def begin():
    kept = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
    last = max((row["step"] for row in kept), default=0) // 10 * 10
    again = rows.exists()
    kept = [row for row in kept if row["step"] <= last]
    if again:
        kept.append({"step": last, "restart": 1 + sum("restart" in row for row in kept)})
    whole = rows.with_suffix(".new")
    whole.write_text("".join(json.dumps(row) + chr(10) for row in kept))
    whole.replace(rows)
    return last
step = begin()
while True:
    time.sleep(0.05)
    if (folder / "hurt").exists():
        (folder / "hurt").unlink()
        print("again    rotnet-1: it was hurt; attempt 2", flush=True)
        time.sleep(0.5)
        step = begin()
    step += 1
    with open(rows, "a") as file:
        file.write(json.dumps({"step": step, "loss": 1.0, "seconds": 0.05 * step}) + chr(10))
"""


class Told(observed_run.Watched):
    """Types DRIVER instead of tilespin."""

    def type(self) -> float:
        with open(self.log, "a") as out:
            self.process = subprocess.Popen([sys.executable, "-c", DRIVER, str(self.folder)], stdout=out)
        return time.time()


@pytest.fixture
def run(tmp_path):
    run = Told([], tmp_path, {})
    run.type()
    yield run
    run.end()


@pytest.mark.parametrize("retype", [False, True])
@pytest.mark.slow
def test_what_a_fault_costs_is_read_off_the_rows(run, tmp_path, retype):
    recovery.midway(run, 10)
    assert run.step_seconds() == pytest.approx(0.05)
    fault = (lambda: run.process.kill()) if retype else (tmp_path / "hurt").touch
    before = run.furthest
    assert before % 10 >= 5
    found = observed_run.cost(run, fault, retype)
    assert 0 <= found["lost"] < 10  # how far it came in the meantime depends on who else uses the machine
    assert 0 <= found["noticed"] < found["resumed"] < found["recovered"]
    if not retype:
        assert found["resumed"] - found["noticed"] >= 0.4  # its pause
    assert found["recovered"] - found["resumed"] >= 0.045 * (found["lost"] - 2)
    assert run.furthest > before and run.restarts() == 1


def test_a_driver_that_ends_is_told_with_its_last_words(run):
    run.log.write_text("the last words\n")
    run.process.kill()
    with pytest.raises(RuntimeError, match="the last words"):
        run.until(lambda: False)


@pytest.mark.slow
def test_goodput_under_faults_counts_only_steps_that_stay(run, tmp_path):
    """A pause of 0.5 s and up to ten steps taken again, twice in four seconds."""
    run.until(lambda: run.furthest > 12)

    def hurt(pid: int) -> None:
        (tmp_path / "hurt").touch()

    worker = SimpleNamespace(trains=lambda: [0])
    machines = SimpleNamespace(working=[worker])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recovery.os, "kill", lambda pid, which: hurt(pid))
        found = recovery.under_faults(run, machines, 2, 2.0)
    assert found["faults"] == 2 and found["seconds"] >= 4
    assert 0 < found["goodput"] < 0.9 and found["step_ms"] == pytest.approx(50)
