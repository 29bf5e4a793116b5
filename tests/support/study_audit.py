"""What a study left, wherever it is stored, and whether anything is missing, there twice, or not as it should be."""

import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from jobs.tracking import offline_runs
from ssl_core.storage.records import EncoderRecord

EVERY = 20  # steps between rows of metrics.jsonl
# what faults may change in a row
TIMES = {"seconds", "images_per_second", "waited", "peak_bytes", "restarts", "workers"}


def rows(run: Any) -> list[dict]:
    """Of metrics.jsonl in a run's folder, as far as it is written."""
    try:
        lines = _whole(run / "metrics.jsonl").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:  # still being written
            break
    return found


def _whole(path: Any) -> str:
    """In a store by one request: between two it may be put anew."""
    return path.read_text() if isinstance(path, Path) else path.fs.cat_file(path.path).decode()


def learned(root: Any) -> dict[str, list[dict]]:
    """For each run all rows of training, without what depends on the time that it took."""
    return {
        run.name: [{k: v for k, v in row.items() if k not in TIMES} for row in rows(run) if "loss" in row]
        for run in _runs(root)
    }


def _runs(root: Any) -> list[Any]:
    return [path.parent for path in root.glob("pretrain/*/config.json")]


def encoders(root: Any) -> dict[str, EncoderRecord]:
    """Each finished run's encoder.json."""
    return {path.parent.name: EncoderRecord.read(path) for path in root.glob("pretrain/*/encoder.json")}


def saved(run: Any) -> int:
    """The step of the newest checkpoint; 0 without one."""
    return max((int(path.name[5:14]) for path in run.glob("checkpoints/step-*.json")), default=0)


def results(root: Any) -> list[dict]:
    return list(csv.DictReader((root / "results.csv").read_text().splitlines()))


def check_same(faulty: Any, alone: Any) -> None:
    """The same weights bit for bit, the same rows, the same results, and each cell once."""
    one, other = encoders(faulty), encoders(alone)
    assert {name: run.digest for name, run in one.items()} == {name: run.digest for name, run in other.items()}
    assert all(run.training.images == other[name].training.images for name, run in one.items())
    assert learned(faulty) == learned(alone)
    for run in _runs(faulty):
        check_rows(rows(run), one[run.name].training.steps)
    found = results(faulty)
    what = ("task", "encoder", "pretrain_run", "steps", "dataset", "protocol", "metric")
    numbers = [tuple(row[key] for key in what) for row in found]
    assert len(set(numbers)) == len(numbers)
    assert found == results(alone)
    cells = [path.name + str(path.parent.name) for path in faulty.glob("evaluate/*/*.json")]
    assert len(cells) == len(list(alone.glob("evaluate/*/*.json")))


def check_rows(found: list[dict], steps: int) -> None:
    """Every row of training exactly once and in order; restarts numbered without a gap."""
    assert [row["step"] for row in found if "loss" in row] == expected(steps)
    restarts = [row["restart"] for row in found if "restart" in row]
    assert restarts == list(range(1, len(restarts) + 1)), restarts


def expected(steps: int) -> list[int]:
    return [*range(EVERY, steps, EVERY), steps]


def check_tracked(folder: Path, root: Any) -> None:
    """W&B, from the segments below the local `folder` in the order in which they are uploaded: each training's
    history has every step once, in order, and then its results; each other encoder's has its results once."""
    history = tracked(folder)
    trained = encoders(root)
    for name, run in trained.items():
        (steps,) = (steps for id, steps in history.items() if id.startswith(name))
        last = run.training.steps
        own = [step for step in steps if step <= last + 1]
        assert own == [*expected(last), last + 1], f"{name}: {steps}"  # the last is the picture's
        assert steps == sorted(set(steps)) and len(steps) > len(own), f"{name}: {steps}"
    tracked_results = {path.stem for path in root.glob("tracked/*.json")}
    assert tracked_results <= history.keys() and len(history) == len(tracked_results) + 1  # and the comparison
    found = [json.loads(path.read_text()) for path in root.glob("evaluate/*/*.json")]
    last = [one for one in found if one["encoder"]["step"] is None]
    assert len(tracked_results) == len({(one["digest"], one["encoder"]["normalization"]) for one in last})
    for id in tracked_results:
        if not any(id.startswith(name) for name in trained):
            assert history[id][0] == 0 and history[id] == sorted(set(history[id])), f"{id}: {history[id]}"


def tracked(folder: Path) -> dict[str, list[int]]:
    """The steps in the history of each run."""
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, list[int]] = defaultdict(list)
    for file in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for record, _ in offline_runs.records(file.read_bytes()):
            read = Record.FromString(record)
            if read.WhichOneof("record_type") == "history":
                found[file.stem.removeprefix("run-")].append(read.history.step.num)
    return dict(found)
