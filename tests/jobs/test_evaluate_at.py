"""Encoders that are kept and evaluated before their trainings end."""

import csv
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from support.study_audit import tracked

from jobs.commands import study as command
from jobs.commands.study import Options
from jobs.config.parsing import parse
from jobs.config.recipe import PretrainConfig
from jobs.config.runtime import RuntimeConfig
from jobs.config.study import TaskEntry
from jobs.pretraining.run import prepare_training
from jobs.pretraining.worker import iter_metrics, run_training
from jobs.report.collect import collect
from jobs.study.folder import Study
from ssl_core.errors import UserError
from ssl_core.storage.records import EncoderRecord

POINTS = [0.25, 6, 1.0]  # of eight steps: the second, the sixth, and the last, which is kept anyway
SHORT = {"tasks": ["rotnet"], "steps": [8], "workers": "0", "supervised": False, "num_labels": 120, "size": 32}
SHORT |= {"decode_threads": 1, "protocols": ["knn"], "evaluate_at_protocols": ["knn", "collapse"]}


def options(data: Path, storage: Path, **values) -> Options:
    given = {**SHORT, "data": data, "storage": storage, "name": "s", "evaluate_at": POINTS, "wandb": "off", **values}
    return parse(Options, "study", ["--config", json.dumps(given, default=str)])


def kept(study: Study) -> dict[str, bytes]:
    return {
        str(path.relative_to(study.root)): path.read_bytes() for path in study.root.glob("pretrain/*/steps/*/*.saf*")
    }


@pytest.fixture(scope="module")
def study(shapes, tmp_path_factory) -> Study:
    values = {"wandb": "offline", "checkpoint_every": "2", "keep_every": 2}
    return command.run(options(shapes, tmp_path_factory.mktemp("at"), **values))


def test_what_is_kept_is_what_the_training_had(study):
    (run,) = study.runs()
    assert sorted(int(path.name) for path in (run / "steps").iterdir()) == [2, 6]
    for step in (2, 6):
        saved = torch.load(run / f"checkpoints/step-{step:09d}.pt", weights_only=True)["model"]
        mine = safetensors.torch.load_file(study.run_at(run.name, step) / "encoder.safetensors")
        theirs = {name.removeprefix("encoder."): of for name, of in saved.items() if name.startswith("encoder.")}
        assert mine.keys() <= theirs.keys() and all(torch.equal(of, theirs[name]) for name, of in mine.items())
        one, last = (EncoderRecord.read(at / "encoder.json") for at in (study.run_at(run.name, step), run))
        assert one.digest != last.digest and one.training.macs * 8 == last.training.macs * step
        assert one.training.images == step * last.training.images / 8 and one.training.seconds < last.training.seconds


def test_numbers_are_beside_those_of_the_end(study):
    rows = list(csv.DictReader(io.StringIO(study.results.read_text())))
    trained = {(int(row["steps"]), row["protocol"]) for row in rows if row["pretrain_run"]}
    assert trained == {(step, "knn") for step in (2, 6, 8)} | {(step, "collapse") for step in (2, 6)}
    row = next(row for row in collect(study) if row.one.run)
    assert [one.one.step for one in row.earlier] == [2, 6] and "Along training" in study.report.read_text()
    assert [one.cost("macs") for one in (*row.earlier, row)] == sorted(one.cost("macs") for one in (*row.earlier, row))


def test_each_is_evaluated_once(study, shapes):
    before = {path: path.stat().st_mtime_ns for path in study.root.glob("*/*/*.json")}
    history = tracked(study.root)
    command.run(options(shapes, study.root.parent, wandb="offline"))
    assert {path: path.stat().st_mtime_ns for path in study.root.glob("*/*/*.json")} == before
    assert tracked(study.root) == {**history, **{id: of for id, of in tracked(study.root).items() if "compare" in id}}


def test_wandb_has_a_row_for_each_step(study):
    from wandb.proto.wandb_internal_pb2 import Record

    from jobs.tracking import offline_runs

    rows = []
    for file in study.root.glob("wandb/offline-run-*rotnet*/run-*.wandb"):
        for record, _ in offline_runs.records(file.read_bytes()):
            if (read := Record.FromString(record)).WhichOneof("record_type") == "history":
                rows.append({(one.key or "/".join(one.nested_key)): one.value_json for one in read.history.item})
    found = ((row, value) for row in rows for name, value in row.items() if name.endswith("knn/top1"))
    curve = [(int(row["train/step"]), float(value)) for row, value in found]
    at_step = {
        (one.one.step or 8): one.mean_value("knn", "top1")
        for row in collect(study)
        for one in (*row.earlier, row)
        if row.one.run
    }
    assert curve == sorted(at_step.items()) and len(curve) == 3


def test_a_training_that_was_stopped_keeps_the_same(study, shapes, tmp_path):
    """Between two points, and again."""
    runtime, again = RuntimeConfig(storage=str(tmp_path), name="s", wandb="off").checked(), Study(tmp_path / "s")
    again.describe()
    config = PretrainConfig(task=TaskEntry("rotnet").config(), data=str(shapes), size=32, encoder="convnet", steps=8)
    training = replace(prepare_training(config, again, runtime, POINTS), log_every=1)
    for stop in (1, 4):
        rows = iter_metrics(training, "cpu")
        assert [next(rows)["step"] for _ in range(stop)][-1] <= 5
        rows.close()
    run_training(training, "cpu")
    assert kept(again) == kept(study) and not training.missing_steps()


def test_points_that_come_later_are_trained_again(study, shapes, tmp_path):
    """From the newest checkpoint before them, or the beginning; nothing of the complete run changes."""
    done = command.run(options(shapes, tmp_path, evaluate_at=[]))
    (run,) = done.runs()
    before = {name: (run / name).read_bytes() for name in ("metrics.jsonl", "encoder.json", "encoder.safetensors")}
    again = command.run(options(shapes, tmp_path))
    assert kept(again) == kept(study)
    assert {name: (run / name).read_bytes() for name in before} == before
    assert [one.one.step for row in collect(again) for one in row.earlier] == [2, 6]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"evaluate_at": [9]}, "--evaluate-at 9 is after the last of the 8 steps of rotnet"),
        ({"evaluate_at": [1.5]}, "--evaluate-at 1.5: expected a fraction of a training, up to 1, or a step"),
        ({"evaluate_at": [0.5, 0.5]}, "--evaluate-at: expected at most 50 points, each once"),
        ({"evaluate_at_protocols": ["knnn"]}, "--evaluate-at-protocols knnn: did you mean knn?"),
    ],
)
def test_what_is_refused(values, message, shapes, tmp_path):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        command.run(options(shapes, tmp_path, **values))
    assert not list(tmp_path.iterdir())


def test_without_labels_only_what_needs_none(shapes, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, path in enumerate(sorted(shapes.glob("*/*.png"))[::6]):
        os.link(path, flat / f"{i}.png")
    values = {"protocols": ["collapse"], "steps": [2], "evaluate_at": [0.5]}
    done = command.run(options(flat, tmp_path, **values, evaluate_at_protocols=["collapse"]))
    (row,) = (row for row in collect(done) if row.one.run)
    assert [one.records.keys() for one in (*row.earlier, row)] == [{"collapse"}] * 2
    with pytest.raises(UserError, match="--evaluate-at-protocols knn: none of the datasets has the labels"):
        command.run(options(flat, tmp_path, **values, name="t"))
