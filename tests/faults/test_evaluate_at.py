"""A study that evaluates encoders along their trainings, whose driver is killed twice."""

from pathlib import Path

import pytest
from support.driver import Driver
from support.study_audit import check_same, check_tracked

from benchmarks.harness.processes import wait_for

STUDY = [
    "study",
    "--size",
    32,
    "--tasks",
    "rotnet",
    "--no-supervised",
    "--steps",
    400,
    "--evaluate-at",
    0.25,
    0.5,
    0.75,
]
STUDY += ["--protocols", "knn", "--decode-threads", 1, "--checkpoint-every", 40, "--num-labels", 120, "--name", "s"]


@pytest.mark.faults
@pytest.mark.parametrize("workers", [1, 2])
def test_two_kills_and_each_step_is_evaluated_once(workers, tilespin, shapes, tmp_path):
    """The first when an encoder is kept and not evaluated, the second when some are evaluated, beside the training if
    there is room. What was evaluated before a kill is not touched again; in the end all is as if nothing had been."""
    study = [*STUDY, "--data", shapes, "--workers", workers]
    tilespin(*study, "--storage", tmp_path / "alone", "--wandb", "off", timeout=1200)
    root, found = tmp_path / "killed" / "s", {}
    for at_least in (("pretrain/*/steps/*/encoder.json", 1), ("evaluate/*/knn-*.json", 1), None):
        with Driver(*study, "--storage", root.parent, "--wandb", "offline") as driver:
            if at_least:
                pattern, more = at_least
                before = len(list(root.glob(pattern)))
                wait_for(lambda: len(list(root.glob(pattern))) >= before + more, 600, pattern)  # noqa: B023
                assert driver.running(), driver.said()
                driver.kill()
            else:
                assert driver.wait(1200) == 0, driver.said()
        now = written(root)
        assert all(now[path] == time for path, time in found.items())
        found = now
    check_same(root, tmp_path / "alone" / "s")
    check_tracked(root, root)
    assert sorted(int(path.name) for path in root.glob("pretrain/*/steps/*")) == [100, 200, 300]
    (evaluated,) = {len(list(root.glob(f"evaluate/*/{name}-*.json"))) for name in ("collapse", "invariance")}
    assert evaluated == 3  # of earlier steps alone


def written(root: Path) -> dict[Path, int]:
    """When the encoders of earlier steps and the records that are there were written."""
    paths = [*root.glob("pretrain/*/steps/*/encoder.json"), *root.glob("evaluate/*/*.json")]
    return {path: path.stat().st_mtime_ns for path in paths}
