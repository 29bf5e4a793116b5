"""A study that tunes: each recipe tries as many learning rates for the same share, and trains with what was chosen."""

import json
from dataclasses import replace

import pytest

from jobs.commands import study as command
from jobs.commands.study import Options
from jobs.config.parsing import parse
from jobs.config.study import StudyConfig, TaskEntry
from jobs.pretraining import worker
from jobs.pretraining.budget import plan_trainings
from jobs.report.tuning import tuning_notes, tuning_rows
from jobs.study.folder import JobsFailed, Study
from jobs.sweep.choice import Candidate, choose_learning_rate, rates_around
from jobs.sweep.tuning import plan_tuning
from ssl_core.errors import Diverged, UserError
from ssl_core.storage.files import read_json
from ssl_core.storage.records import EncoderRecord, EvaluationRecord

SHORT = {"steps": [8], "workers": "0", "wandb": "off", "num_labels": 60, "decode_threads": 1, "protocols": ["knn"]}
TASKS = ["rotnet", {"name": "jigsaw", "batch": 16}]


def options(**values) -> Options:
    return parse(Options, "study", ["--config", json.dumps({**SHORT, **values}, default=str)])


def learning_rates(study: Study) -> dict[str, float]:
    found = {}
    for folder in study.runs():
        config = read_json(folder / "config.json")
        found[config["task"]["name"]] = config["task"]["optim"]["lr"]
    return found


@pytest.fixture(scope="module")
def tuned(shapes, tmp_path_factory) -> Study:
    storage = tmp_path_factory.mktemp("runs")
    asked = options(data=shapes, size=32, tasks=TASKS, tune=2, tune_fraction=0.5, supervised=False, storage=storage)
    return command.run(asked)


@pytest.mark.slow
def test_each_recipe_tries_as_many_rates_and_is_trained_with_the_best(tuned, shapes):
    """Held-out images choose, by what the trials' own records say."""
    tuning = tuned.read().tuning
    assert [one.task for one in tuning] == ["rotnet", "jigsaw (batch 16)"]
    assert learning_rates(tuned) == {"rotnet": tuning[0].lr, "jigsaw": tuning[1].lr}
    trials = Study(tuned.root / "tuning")
    for one in tuning:
        assert [trial.steps for trial in one.trials] == [4, 4]
        rates = [trial.lr for trial in one.trials]
        assert rates == sorted(rates) and rates == list(rates_around(rates[1], 2))
        candidates = []
        for trial in one.trials:
            record = EncoderRecord.read(trials.run(trial.run) / "encoder.json")
            (path,) = (trials.root / "evaluate" / record.digest[:16]).glob("linear-*.json")
            found = EvaluationRecord.read(path)
            accuracy = found.chosen["val_score"]
            assert trial.val_accuracy == {f"{shapes.name}, 32 px": accuracy}
            candidates.append(Candidate(trial.lr, trial.loss, {"": (accuracy, found.dataset.images["val"])}))
        assert one.lr == choose_learning_rate(candidates)[0].lr
    assert not [*tuned.root.glob("wandb*")] and len(tuned.runs()) == 2


@pytest.mark.slow
def test_the_same_study_again_tunes_and_trains_nothing(tuned, shapes, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in tuned.root.rglob("encoder.json")}
    monkeypatch.setattr(worker, "iter_metrics", lambda *args: pytest.fail("something was trained"))
    asked = options(
        data=shapes, size=32, tasks=TASKS, tune=2, tune_fraction=0.5, supervised=False, storage=tuned.root.parent
    )
    tuning = tuned.read().tuning
    assert command.run(asked).read().tuning == tuning
    assert before == {path: path.stat().st_mtime_ns for path in tuned.root.rglob("encoder.json")}


@pytest.mark.slow
def test_the_report_says_what_was_tried_and_what_it_cost(tuned):
    record = tuned.read()
    first, *rest = tuning_notes(record)
    assert first.startswith("Each recipe tried 2 learning rates for 0.5 of its length, which cost it 1 times")
    assert "held-out training images" in first
    edges = [one.task for one in record.tuning if one.at_edge]
    assert bool(edges) == any(line.startswith("At the edge") for line in rest)
    rows = tuning_rows(record)
    assert len(rows) == 4 and sum(row["chosen"] == "yes" for row in rows) == 2
    page = tuned.report.read_text()
    assert first in page and all(f"<td>{row['pretext loss']}</td>" in page for row in rows)


@pytest.mark.slow
def test_a_rate_that_diverges_is_not_chosen_and_named(shapes, tmp_path, monkeypatch):
    """Without labels the pretext loss chooses; another failure ends the study, with a code of its own."""
    for path in sorted(shapes.glob("*/*.png"))[::4]:
        (tmp_path / "flat").mkdir(exist_ok=True)
        (tmp_path / "flat" / f"{path.parent.name}-{path.name}").write_bytes(path.read_bytes())
    asked = options(
        data=tmp_path / "flat", size=32, tasks=["rotnet"], tune=3, supervised=False, storage=tmp_path / "runs"
    )
    asked = replace(asked, evaluation=replace(asked.evaluation, protocols=("invariance",)))
    whole, error = worker._check_finite, Diverged("the loss is nan at step 2")

    def check(means, step, folder):
        if read_json(folder / "config.json")["task"]["optim"]["lr"] > 0.1:
            raise error
        whole(means, step, folder)

    monkeypatch.setattr(worker, "_check_finite", check)
    error = OSError("no such device")
    with pytest.raises(JobsFailed):
        command.run(asked)
    error = Diverged("the loss is nan at step 2")
    study = command.run(asked)
    (one,) = study.read().tuning
    assert len(one.trials) == 2 and one.diverged == (max(rates_around(one.trials[1].lr, 3)),)
    assert one.by == "pretext loss" and one.lr == min(one.trials, key=lambda trial: trial.loss).lr
    notes = tuning_notes(study.read())
    assert "the pretext loss, for there are no labels" in notes[0] and notes[-1].startswith("Diverged, and not chosen")


def test_trials_have_the_same_share_of_each_length_and_one_seed():
    config = StudyConfig(
        tasks=(TaskEntry("rotnet"), TaskEntry("context")),
        encoders=("convnet", "convnet-plain"),
        budget=(40.0, 400.0),
        seeds=2,
        supervised=False,
        tune=4,
        tune_fraction=0.25,
    )
    planned = plan_trainings(config)
    groups = plan_tuning(config, planned)
    assert len(planned) == 16 and len(groups) == 8 and {len(of) for of in groups.values()} == {4}
    for one, trials in groups.items():
        assert {trial.steps for trial in trials} == {max(1, round(0.25 * one.steps))}
        assert one.task.optim.lr in [trial.task.optim.lr for trial in trials]
        assert {trial.seed for trial in trials} == {config.seed}


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"tune": 1}, "--tune is 1, expected 0, or 2 or more learning rates"),
        ({"tune": -2}, "--tune is -2, expected 0"),
        ({"tune": 3, "tune_fraction": 0.0}, "--tune-fraction is 0.0, expected a share above 0"),
        ({"tune": 3, "tune_fraction": 1.5}, "--tune-fraction is 1.5, expected a share above 0 and at most 1"),
    ],
)
def test_refused_before_anything_runs(values, why):
    with pytest.raises(UserError, match=why):
        StudyConfig(tasks=(TaskEntry("rotnet"),), **values).check()


def test_the_best_within_noise_has_the_lowest_loss():
    """Of 100 held-out images on each of two datasets the standard error of the mean accuracy is 3.5 points."""
    candidates = [
        Candidate(0.01, 0.9, {"a": (0.5, 100), "b": (0.5, 100)}),
        Candidate(0.03, 0.7, {"a": (0.52, 100), "b": (0.54, 100)}),
        Candidate(0.1, 0.8, {"a": (0.56, 100), "b": (0.56, 100)}),
    ]
    assert round(candidates[0].standard_error, 4) == 0.0354
    assert [one.lr for one in map(lambda n: choose_learning_rate(candidates[n:])[0], (0, 1, 2))] == [0.03, 0.03, 0.1]
    assert choose_learning_rate(candidates)[1] == "held-out linear accuracy, then pretext loss"
    assert choose_learning_rate([Candidate(0.1, 2.0), Candidate(1.0, float("nan"))])[0].lr == 0.1


def test_rates_are_two_a_decade_with_the_own_among_them():
    assert rates_around(0.1, 3) == (0.0316, 0.1, 0.316)
    assert rates_around(0.1, 4) == (0.01, 0.0316, 0.1, 0.316)
    assert rates_around(3e-4, 5) == (3e-05, 9.49e-05, 0.0003, 0.000949, 0.003)


@pytest.mark.slow
def test_studies_say_whether_recipes_are_tuned(tuned):
    """The tasks' own rates were chosen on CIFAR-10 with convnet, and nowhere else."""
    record = replace(tuned.read(), tuning=())
    assert record.config
    (note,) = tuning_notes(record)
    assert note.startswith("Learning rates are not tuned for these images") and "CIFAR-10" in note
    there = {**record.config, "pretrain": {**record.config["pretrain"], "data": "cifar10"}}
    assert tuning_notes(replace(record, config=there)) == []
    assert tuning_notes(replace(record, config={**there, "encoders": ["resnet18"]}))
    assert tuning_notes(replace(record, config=None)) == []
