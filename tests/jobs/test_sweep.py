"""A sweep: its trials are the study's runs, the worse are stopped, and nothing is done twice."""

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest

import jobs.commands.sweep
import jobs.pretraining.recorder
import jobs.sweep.run
from jobs.config.runtime import RuntimeConfig
from jobs.pretraining.run import prepare_training
from jobs.study.folder import Study
from jobs.sweep.grid import Grid
from jobs.sweep.run import iter_rows
from jobs.sweep.trials import TrialRow, best_learning_rates
from ssl_core.data.dataset import open_source
from ssl_core.errors import UserError


def arguments(shapes, storage) -> list[str]:
    words = [
        "--data",
        shapes,
        "--size",
        32,
        "--tasks",
        "rotnet",
        "--lr-factors",
        1,
        0.001,
        "--budget",
        32,
        "--asha-grace",
        0.5,
        "--storage",
        storage,
        "--wandb",
        "off",
        "--decode-threads",
        1,
    ]
    return [str(word) for word in words]


@pytest.fixture(scope="module")
def swept(shapes, tmp_path_factory) -> Study:
    """Two learning rates, one after the other: on one core Tune keeps their order."""
    storage, cores = tmp_path_factory.mktemp("runs"), os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        jobs.commands.sweep.main(arguments(shapes, storage))
    finally:
        os.sched_setaffinity(0, cores)
    return Study(storage / "sweep")


@pytest.mark.ray
def test_the_worse_is_stopped_and_the_better_is_named(swept):
    said = json.loads((swept.root / "sweep.json").read_text())
    good, bad = said["trials"]
    assert (good["state"], good["lr"], good["step"]) == ("complete", 0.06, good["steps"])
    assert (bad["state"], bad["lr"], bad["step"]) == ("stopped", 6e-05, bad["steps"] // 2)
    assert said["best"] == {
        "rotnet": {"convnet": {"lr": 0.06, "by": "pretext loss", "loss": good["loss"], "val_accuracy": None}}
    }
    assert (swept.run(good["run"]) / "encoder.json").exists() and len(swept.runs()) == 1
    assert json.loads((swept.run(bad["run"]) / "stopped.json").read_text())["step"] == bad["step"]


def test_again_nothing_is_trained(swept, shapes, monkeypatch, capsys):
    """Ray is not even started."""
    monkeypatch.setattr(jobs.sweep.run, "ray_session", None)
    before = {path: path.stat().st_mtime_ns for path in swept.root.glob("pretrain/*/*")}
    jobs.commands.sweep.main(arguments(shapes, swept.root.parent))
    assert {path: path.stat().st_mtime_ns for path in swept.root.glob("pretrain/*/*")} == before
    assert "rotnet, convnet: best learning rate 0.06 by pretext loss" in capsys.readouterr().out


def test_earlier_losses_are_told_again(swept, shapes):
    """Of a complete trial all, the last by its encoder; of a stopped one those before the stop."""
    grid = Grid(tasks=("rotnet",), lr_factors=(1.0, 0.001), data=str(shapes), size=32, budget=32)
    where = RuntimeConfig(workers="1", wandb="off")
    good, bad = (list(iter_rows(prepare_training(recipe, swept, where), "cpu")) for recipe in grid.recipes())
    steps = len(good)
    assert [row["step"] for row in good] == list(range(1, steps + 1))
    assert [row["step"] for row in bad] == list(range(1, steps // 2 + 1))


def test_wandb_hears_that_a_trial_was_stopped(shapes, tmp_path, monkeypatch):
    """Not that it failed; and there is no encoder, but a checkpoint would continue it."""
    said: list = []
    tracker = SimpleNamespace(
        log=lambda values, step: None,
        summary=said.append,
        keep=lambda: None,
        finish=lambda failed=False: said.append(failed),
    )
    monkeypatch.setattr(jobs.pretraining.recorder, "Tracker", lambda *_, **__: tracker)
    grid, study = (
        Grid(tasks=("rotnet",), lr_factors=(1.0,), data=str(shapes), size=32, budget=32),
        Study(tmp_path / "it"),
    )
    study.describe()
    one = prepare_training(grid.recipes()[0], study, RuntimeConfig(workers="1", wandb="off", decode_threads=1))
    rows = iter_rows(replace(one, log_every=1), "cpu")
    assert [next(rows)["step"], next(rows)["step"]] == [1, 2]
    rows.close()
    assert said[:2] == [{"stopped_early": True, "stopped_at": 2}, False]
    assert not study.runs() and (one.folder / "metrics.jsonl").exists()
    (saved,) = one.folder.glob("checkpoints/step-*.json")
    assert json.loads(saved.read_text())["step"] == 2


@pytest.mark.slow
def test_every_combination_has_the_same_budget(shapes):
    grid = Grid(
        tasks=("rotnet", "context"),
        encoders=("convnet", "nin"),
        lrs=(0.1, 0.2),
        seeds=(0, 1),
        data=str(shapes),
        size=32,
        budget=100,
    )
    found = grid.recipes()
    source = open_source(str(shapes), 32)
    assert len({one.resolved(source, "cpu").run_name(source) for one in found}) == 16
    assert len(found) == 16 and {one.task.optim.lr for one in found} == {0.1, 0.2}
    lengths = {(type(one.task), one.encoder): one.steps for one in found}
    assert len(set(lengths.values())) == 4  # a step of each costs something else


ROW = TrialRow("rotnet", "convnet", 0.1, 0, "run", 10, "complete", 10, 1.0)


def chosen(rows) -> tuple:
    one = best_learning_rates(rows)["rotnet"]["convnet"]
    return one["lr"], one["by"]


def test_the_best_is_chosen_by_what_held_out_images_say():
    rows = [ROW, replace(ROW, lr=0.3, loss=0.5), replace(ROW, lr=0.9, loss=0.1, state="stopped")]
    assert chosen(rows) == (0.3, "pretext loss")
    judged = [replace(rows[0], val_accuracy=0.6, val_images=100), replace(rows[1], val_accuracy=0.4), rows[2]]
    judged[1].val_images = 100
    assert chosen(judged) == (0.1, "held-out linear accuracy")
    assert chosen([judged[0], rows[1]]) == (0.3, "pretext loss")  # not all of them were judged
    assert chosen([replace(ROW, loss=float("nan")), rows[1]])[0] == 0.3


def test_where_held_out_images_cannot_tell_the_loss_chooses():
    """The standard error of 60 % of 100 images is 4.9 points."""
    judged = [
        replace(ROW, lr=lr, loss=loss, val_accuracy=accuracy, val_images=100)
        for lr, loss, accuracy in ((0.1, 1.0, 0.6), (0.3, 0.5, 0.552), (0.9, 0.1, 0.55))
    ]
    assert best_learning_rates(judged)["rotnet"]["convnet"] == {
        "lr": 0.3,
        "by": "held-out linear accuracy, then pretext loss",
        "loss": 0.5,
        "val_accuracy": 0.552,
    }
    for one in judged:
        one.val_images = 10_000
    assert chosen(judged)[0] == 0.1


def test_a_learning_rate_counts_with_all_its_seeds():
    rows = [
        ROW,
        replace(ROW, seed=1, loss=2.0),
        replace(ROW, lr=0.3, loss=0.1),
        replace(ROW, lr=0.3, seed=1, state="failed", loss=None),
    ]
    assert chosen(rows) == (0.1, "pretext loss") and best_learning_rates(rows)["rotnet"]["convnet"]["loss"] == 1.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tasks", "rotnett"], r"--tasks rotnett: did you mean rotnet\?"),
        (["--seeds", "1", "1"], "--seeds 1 1: expected at least one, each once"),
        (["--workers", "2"], "each training of a sweep has one worker"),
        (["--asha-grace", "0"], "--asha-grace is 0"),
        (["--asha-reduction", "1"], "--asha-reduction is 1"),
        (["--lrs", "-1"], "--lr is -1"),
    ],
)
def test_refused_before_anything_is_made(words, said, shapes, tmp_path):
    with pytest.raises(UserError, match=said):
        jobs.commands.sweep.main([*arguments(shapes, tmp_path), *words])
    assert not (tmp_path / "sweep").exists()
