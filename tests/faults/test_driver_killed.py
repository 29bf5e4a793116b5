"""The driver is killed again and again, and the same command typed again."""

import itertools
import math
import random
import time
from pathlib import Path

import pytest
from support.driver import Driver
from support.study_audit import check_same, check_tracked, rows, saved

from benchmarks.harness.processes import wait_for

KILLS, SEED = 10, 2


@pytest.mark.faults
def test_ten_kills_cost_at_most_what_was_not_saved(tilespin, shapes, tmp_path):
    """At ten random moments of a study, or of another one if it is complete before: while it starts, trains, judges.
    Each training goes on from its newest checkpoint or a later one, and in the end all is as if nothing had been."""
    study = [
        "study",
        "demo",
        "--data",
        shapes,
        "--size",
        32,
        "--budget",
        400,
        "--decode-threads",
        1,
        "--checkpoint-every",
        10,
    ]
    began = time.monotonic()
    tilespin(*study, "--storage", tmp_path / "alone", "--wandb", "off", timeout=1800)
    whole, rng, kills, studies = time.monotonic() - began, random.Random(SEED), 0, 0
    alone = tmp_path / "alone" / "demo"
    while kills < KILLS:
        studies += 1
        root = tmp_path / f"killed-{studies}" / "demo"
        kills += killed(study, root, [rng.uniform(0, 0.4 * whole) for _ in range(KILLS - kills)])
        check_same(root, alone)
        check_tracked(root, root)


def killed(study: list, root: Path, moments: list[float]) -> int:
    """Runs a study to its end, and kills its driver so many seconds after each of its beginnings -> how often."""
    newest, known = {}, {}  # by run: its checkpoint at the last kill; its restarts until then
    for kill in itertools.count():
        moment = moments[kill] if kill < len(moments) else math.inf
        with Driver(*study, "--storage", root.parent, "--wandb", "offline") as driver:
            # at least until the study is opened, or no kill would let it advance
            wait_for(lambda: "held out as test data" in driver.said(), 120, "a beginning")
            until = time.monotonic() + moment
            while driver.running() and time.monotonic() < until:
                time.sleep(0.05)
            if not driver.running():
                assert driver.wait(60) == 0, driver.said()
                check_restarts(root, newest, known)
                return kill
            driver.kill()
        newest, known = check_restarts(root, newest, known)
        print(
            f"killed after {moment:.1f} s: newest checkpoints {list(newest.values())}, restarts {list(known.values())}",
            flush=True,
        )


def check_restarts(root: Path, newest: dict[str, int], known: dict[str, int]) -> tuple[dict, dict]:
    """Whoever went on since the last kill did so from what was the newest checkpoint then, or one that was being
    written -> both as they are now."""
    runs = {path.parent.name: path.parent for path in sorted(root.glob("pretrain/*/config.json"))}
    for name, run in runs.items():
        for row in restarts(run)[known.get(name, 0) :]:
            assert row["step"] >= newest.get(name, 0), f"{name} lost what was saved: {row}"
    return {name: saved(run) for name, run in runs.items()}, {name: len(restarts(run)) for name, run in runs.items()}


def restarts(run: Path) -> list[dict]:
    return [row for row in rows(run) if "restart" in row]
