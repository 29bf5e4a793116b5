"""The driver is killed again and again, and the same command typed again."""

import random
import time

import pytest
from faults.driver import Driver
from faults.evidence import check_same, check_tracked, rows, saved

from benchmarks.processes import wait_for

KILLS, SEED = 10, 2


@pytest.mark.faults
def test_ten_kills_cost_at_most_what_was_not_saved(tilespin, shapes, tmp_path):
    """At ten random moments of a study: while it starts, trains, judges. Each training goes on from its newest
    checkpoint or a later one, and in the end all is as if nothing had happened."""
    study = ["study", "demo", "--data", shapes, "--size", 32, "--budget", 400, "--threads", 1, "--checkpoint-every", 10]
    began = time.monotonic()
    tilespin(*study, "--storage", tmp_path / "alone", "--tracking", "off", timeout=1800)
    whole, rng = time.monotonic() - began, random.Random(SEED)
    alone, root = tmp_path / "alone" / "demo", tmp_path / "killed" / "demo"
    runs = {path.parent.name: root / "pretrain" / path.parent.name for path in alone.glob("pretrain/*/encoder.json")}
    newest, known = dict.fromkeys(runs, 0), dict.fromkeys(runs, 0)  # checkpoint at the last kill; restarts until then
    for kill in range(1, KILLS + 1):
        with Driver(*study, "--storage", tmp_path / "killed", "--tracking", "offline") as driver:
            # at least until the study is opened, or no kill would let it advance
            wait_for(lambda: "held out as test data" in driver.said(), 120, "a beginning")
            time.sleep(rng.uniform(0, 0.4 * whole))
            assert driver.running(), f"the study was complete after {kill - 1} kills"
            driver.kill()
            newest, known = check_restarts(runs, newest, known)
            print(
                f"kill {kill}: newest checkpoints {list(newest.values())}, restarts {list(known.values())}", flush=True
            )
    tilespin(*study, "--storage", tmp_path / "killed", "--tracking", "offline", timeout=1800)
    check_restarts(runs, newest, known)
    check_same(root, alone)
    check_tracked(root, root)


def check_restarts(runs: dict, newest: dict[str, int], known: dict[str, int]) -> tuple[dict, dict]:
    """Whoever went on since the last kill did so from what was the newest checkpoint then, or one that was being
    written -> both as they are now."""
    for name, run in runs.items():
        for row in restarts(run)[known[name] :]:
            assert row["step"] >= newest[name], f"{name} lost what was saved: {row}"
    return {name: saved(run) for name, run in runs.items()}, {name: len(restarts(run)) for name, run in runs.items()}


def restarts(run) -> list[dict]:
    return [row for row in rows(run) if "restart" in row]
