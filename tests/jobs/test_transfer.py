"""Studies of unlabeled images that are evaluated on labeled ones, of several starts and datasets, from one file."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from support.study_audit import tracked

from jobs.commands import evaluate as evaluate_command
from jobs.commands import study as command
from jobs.commands.study import Options
from jobs.config.parsing import parse
from jobs.evaluation.encoders import with_baselines
from jobs.evaluation.external import load_external
from jobs.report.collect import collect
from jobs.report.comparison import by_dataset
from jobs.study.folder import Study
from jobs.tracking import offline_runs
from ssl_core.data.dataset import open_source
from ssl_core.errors import UserError
from ssl_core.storage.records import EncoderRecord

SHORT = {"steps": [2], "workers": "0", "wandb": "off", "num_labels": 120, "decode_threads": 1}


def run(*words, **values) -> Study:
    return command.run(
        parse(Options, "study", [*map(str, words), "--config", json.dumps({**SHORT, **values}, default=str)])
    )


def rows(study: Study) -> list[dict]:
    return list(csv.DictReader(study.results.open()))


@pytest.fixture(scope="module")
def flat(shapes, tmp_path_factory) -> Path:
    """Images without labels."""
    folder = tmp_path_factory.mktemp("unlabeled")
    for path in sorted(shapes.glob("*/*.png"))[::4]:
        shutil.copy(path, folder / f"{path.parent.name}-{path.name}")
    return folder


@pytest.fixture(scope="module")
def few(shapes, tmp_path_factory) -> Path:
    """Labeled images, twelve of each class."""
    folder = tmp_path_factory.mktemp("few")
    for path in sorted(shapes.glob("*/*.png"))[::5]:
        (folder / path.parent.name).mkdir(exist_ok=True)
        shutil.copy(path, folder / path.parent.name / path.name)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    safetensors.torch.save_file(timm.create_model("resnet18").state_dict(), path)
    return path


@pytest.mark.slow
def test_unlabeled_images_are_judged_on_labeled_ones(flat, shapes, tmp_path, monkeypatch, capfd):
    """The reference is trained on the labels that there are, at the size that encoders are trained at."""
    monkeypatch.chdir(tmp_path)
    reference = {"name": "supervised", "lr": 0.1}
    asked = dict(tasks=["rotnet", "pirl", reference], transfer=[shapes], protocols=["knn"], kmeans=16)
    study = run("--data", flat, "--size", 32, **asked)
    trained = {
        one.task: one for folder in study.runs() if (one := EncoderRecord.read(folder / "encoder.json").training)
    }
    assert {task: one.data for task, one in trained.items()} == {
        "rotnet": str(flat),
        "pirl": str(flat),
        "kmeans": str(flat),
        "supervised": str(shapes),
    }
    assert {one.size for one in trained.values()} == {32}
    assert study.root.name == flat.name
    found = rows(study)
    assert {row["task"] for row in found} == {"raw-pixels", "random-init", "kmeans", "rotnet", "pirl", "supervised"}
    assert {row["dataset"] for row in found} == {shapes.name}
    assert {row["task"] for row in found if row["metric"].endswith("gain-over-random-init")} == {
        "rotnet",
        "pirl",
        "supervised",
    }
    assert [row.name for row in collect(study) if row.kind == "floor"] == ["raw-pixels", "random-init", "kmeans"]
    assert "Against kmeans, patches that k-means learned" in study.report.read_text()
    before = study.results.stat().st_mtime_ns
    files = sorted(study.root.rglob("evaluate/**/*.json"))
    assert run("--data", flat, "--size", 32, **asked).results.stat().st_mtime_ns == before
    assert sorted(study.root.rglob("evaluate/**/*.json")) == files
    run("--data", flat, "--size", 32, "--dry-run", **{**asked, "seeds": 2})
    assert "k-means of 16 centroids with 2 seeds, 1 of them there already" in " ".join(capfd.readouterr().err.split())
    [dictionary] = study.root.glob("pretrain/kmeans-*")
    elsewhere = load_external(str(dictionary), str(shapes), 32).evaluated
    assert [one.task for one in with_baselines([elsewhere])] == ["raw-pixels", dictionary.name]


@pytest.mark.slow
def test_two_thousand_unlabeled_and_three_hundred_labeled_images(tilespin, tmp_path):
    """Of CIFAR-10, as files in folders, by one command that names no file of a study: from nothing to a report."""
    source = open_source("cifar10")
    for folder, ids in (("unlabeled", range(2000)), ("labeled", range(2000, 2300))):
        for i in ids:
            name = source.classes[source.train.labels[i]] if folder == "labeled" else "."
            (tmp_path / folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(source.train.images[i]).save(tmp_path / folder / name / f"{i}.png")
    words = "study --data unlabeled --transfer labeled --tasks rotnet pirl --encoders convnet"
    more = "--size 32 --budget 40 --protocols linear knn --workers 0 --wandb off --decode-threads 1"
    said = tilespin(*words.split(), *more.split(), cwd=tmp_path).stdout
    assert said.startswith("Pretraining ") and "by linear, " in said
    found = rows(Study(tmp_path / "runs/unlabeled"))
    top1 = {row["task"]: row for row in found if (row["protocol"], row["metric"]) == ("linear", "top1")}
    assert {*top1} == {"raw-pixels", "random-init", "rotnet", "pirl", "supervised"}
    assert all(float(row["low"]) < float(row["value"]) < float(row["high"]) for row in top1.values())
    assert (tmp_path / "runs/unlabeled/report.html").stat().st_size > 100_000


@pytest.mark.slow
def test_a_file_says_all_of_a_study(flat, few, weights, tmp_path, monkeypatch, capfd):
    """Two starts, two sizes of one dataset with protocols of their own, and options of a task."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "insects.toml").write_text(f"""
        steps = [2]
        encoders = ["resnet18"]
        init = ["random", "timm:resnet18={weights}"]
        supervised = false
        transfer = [{{ data = "{few}" }}, {{ data = "{few}", size = 12, protocols = ["knn"] }}]
        [pretrain]
        data = "{flat}"
        size = 16
        [[tasks]]
        name = "pirl"
        transform = "jigsaw"
        batch = 8
        optim.lr = 0.01
        [evaluation]
        num_labels = 120
        protocols = ["knn", "collapse"]
        [runtime]
        workers = "0"
        wandb = "off"
    """)
    command.main(["insects.toml", "--dry-run", "--wandb", "offline"])
    said = " ".join(capfd.readouterr().err.split())
    assert "2 trainings (1 task: pirl, 1 encoder: resnet18, 2 starts: random timm:resnet18=" in said
    # raw pixels, random encoders with either stem, the start itself, and both trainings
    assert "18 evaluations of 6 encoders, baselines included" in said and "16 px" in said and "12 px" in said
    assert "of training on one worker like this machine (cpu), by its first steps: pirl " in said
    assert not Path("runs").exists(), "nothing was done"
    command.main(["insects.toml"])
    study = Study("runs/insects")
    configs = [json.loads(path.read_text()) for path in study.root.glob("pretrain/*/config.json")]
    assert {(one["task"]["transform"], one["task"]["optim"]["lr"]) for one in configs} == {("jigsaw", 0.01)}
    assert {one["init"] for one in configs} == {"random", "timm:resnet18=w.safetensors"}
    started = [one for one in configs if one["init"] != "random"]
    assert all(len(one["init_digest"]) == 64 for one in started) and len(started) == 1
    parts = by_dataset(collect(study))
    names = {part.dataset: {row.name for row in part.rows} for part in parts}
    of = {
        "raw-pixels",
        "random-init (built for 64 px)",
        "pirl (init random)",
        "pirl (init timm:resnet18=w.safetensors)",
        "timm:resnet18=w.safetensors",
    }
    assert names == {f"{few.name}, {side} px": of | {f"random-init (built for {side} px)"} for side in (16, 12)}
    assert [part.protocols for part in parts] == [("knn", "collapse"), ("knn",)]


@pytest.mark.slow
def test_weights_go_on_from_their_start(shapes, weights, tmp_path):
    """With a rate of nothing they stay what they were, and take pixels as their library's do."""
    study = run(
        *("--data", shapes, "--size", 64, "--storage", tmp_path, "--name", "same", "--no-supervised"),
        encoders=["resnet18"],
        init=[f"timm:resnet18={weights}"],
        tasks=[{"name": "rotnet", "optim": {"lr": 0.0, "weight_decay": 0.0}}],
        protocols=["knn"],
    )
    (folder,) = study.runs()
    kept = safetensors.torch.load_file(folder / "encoder.safetensors")
    given = safetensors.torch.load_file(weights)
    same = [name for name in kept if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert same and all(torch.equal(kept[name], given[name]) for name in same)
    record = EncoderRecord.read(folder / "encoder.json")
    assert record.mean == pytest.approx((123.675, 116.28, 103.53)) and record.size == 64
    found = {row["task"] for row in rows(study)}
    assert found == {"raw-pixels", "random-init", "rotnet", "timm:resnet18=w.safetensors"}


@pytest.mark.slow
def test_a_finished_study_is_evaluated_on_another_dataset(flat, shapes, tmp_path, capsys):
    """From the command that evaluates; results of before stay, and come back with their dataset."""
    study = run("--data", flat, "--size", 32, "--storage", tmp_path, tasks=["rotnet"], protocols=["collapse"])
    words = ["--wandb", "off", "--decode-threads", "1", "--num-labels", "120"]
    evaluate_command.main([str(study.root), "--transfer", str(shapes), "--protocols", "knn", *words])
    found = {(row["task"], row["dataset"], row["protocol"]) for row in rows(study)}
    assert found == {(task, shapes.name, "knn") for task in ("raw-pixels", "random-init", "rotnet")}
    files = {path: path.stat().st_mtime_ns for path in study.root.rglob("evaluate/**/*.json")}
    assert len(files) == 3 + 3, "what was there stays"
    evaluate_command.main([str(study.root), *words[:4]])
    assert {path: path.stat().st_mtime_ns for path in study.root.rglob("evaluate/**/*.json")} == files
    assert "Pretraining" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('encoder = "convnet"', "no option encoder: did you mean encoders?"),
        ('tasks = ["rotnt"]', "tasks: --tasks rotnt: did you mean rotnet?"),
        ('tasks = [{ name = "pirl", lrr = 1 }]', "tasks: --tasks pirl: no option lrr: did you mean lr?"),
        ('tasks = [{ name = "pirl", lr = "x" }]', 'tasks: --tasks pirl: lr is "x", expected a valid number'),
        ("tasks = [{ lr = 1 }]", "tasks: expected a name, or a table"),
        ('transfer = [{ data = "a", sise = 3 }]', "transfer[0].sise is 3, expected"),
        ('transfer = [{ data = "a", size = "x" }]', 'transfer[0].size is "x", expected a valid integer'),
        ('[pretrain]\nencoders = ["x"]', "[pretrain]: no option encoders: there is data, size"),
        ('data = "a"\n[pretrain]\ndata = "b"', "data is there twice"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line(text, said, tmp_path):
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(UserError) as error:
        parse(Options, "study", [str(tmp_path / "s.toml")])
    assert str(error.value).startswith(f"{tmp_path / 's.toml'}: ") and "\n" not in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--seeds", 2, "demo"), "demo has to come first: tilespin study demo"),
        (("dmeo",), "study dmeo: did you mean demo?"),
        (("--no-supervised",), "--tasks: expected at least one"),
        (("--tasks", "rotnet", "rotnet"), "--tasks rotnet rotnet: expected at least one, each once"),
        (("--tasks", "rotnet", "--steps", 1, "--epochs", 1), "--epochs and --steps are both given: choose one"),
        (("--tasks", "rotnet", "--budget", -1), "--budget is -1.0, expected GMACs above 0"),
        (("--tasks", "rotnet", "--seeds", 0), "--seeds is 0, expected at least 1"),
        (("--tasks", "rotnet", "--init", "timm:resnet18=random"), "--init timm:resnet18=random: that is at random"),
        (("--tasks", "rotnet", "--init", "nowhere"), "--init nowhere: "),
    ],
)
def test_what_cannot_work_is_refused(words, said, tmp_path):
    with pytest.raises(UserError) as error:
        command.run(parse(Options, "study", [*map(str, words), "--storage", str(tmp_path), "--wandb", "off"]))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_length_takes_the_place_of_another_one_in_a_file(tmp_path):
    """Whatever the built-in study says; two that are given in one place are refused."""
    for words in (["--steps", "3"], ["--config", '{"steps": 3}']):
        config = parse(Options, "study", ["demo", *words]).study
        assert (config.steps, config.budget, config.lengths()) == ((3,), (), ("steps", (3,)))
    assert parse(Options, "study", ["demo", "--budget", "7"]).study.lengths() == ("budget", (7.0,))
    (tmp_path / "s.toml").write_text('tasks = ["rotnet"]\nsteps = 3\nepochs = 2')
    with pytest.raises(UserError, match="choose one"):
        parse(Options, "study", [str(tmp_path / "s.toml")]).study.check()


def test_a_dataset_may_be_named_once(shapes, tmp_path):
    with pytest.raises(UserError, match="expected each dataset once"):
        run("--data", shapes, "--size", 32, "--storage", tmp_path, tasks=["rotnet"], transfer=[shapes, f"{shapes}@32"])


def test_a_start_of_another_architecture_is_refused(weights, shapes, tmp_path):
    with pytest.raises(UserError, match=r"--init .* is a resnet18, which is not among --encoders"):
        run("--data", shapes, "--size", 32, "--storage", tmp_path, tasks=["rotnet"], init=[f"timm:resnet18={weights}"])


@pytest.mark.slow
def test_numbers_of_several_datasets_follow_from_the_records(flat, shapes, tmp_path):
    """Each number of results.csv, means over datasets included, from the files of the records alone; and W&B has them
    in one run for each encoder, each once."""
    asked = dict(
        tasks=["rotnet", "pirl"],
        supervised=False,
        transfer=[{"data": shapes}, {"data": shapes, "size": 24}],
        protocols=["knn"],
    )
    study = run("--data", flat, "--size", 32, "--storage", tmp_path, wandb="offline", **asked)
    records = [json.loads(path.read_text()) for path in study.root.glob("evaluate/*/*.json")]
    top1 = {(one["encoder"]["task"], one["encoder"]["size"]): one["numbers"]["top1"] for one in records}
    assert len(top1) == len(records) == 2 * 4
    found = rows(study)
    for row in (row for row in found if row["metric"] == "top1"):
        size = int(row["dataset"].split()[-2])
        assert float(row["value"]) == top1[row["task"], size]
    means = {(row["task"], row["metric"]): float(row["value"]) for row in found if row["dataset"] == "2 datasets"}
    for task in ("rotnet", "pirl"):
        gains = [top1[task, size] - top1["random-init", size] for size in (32, 24)]
        assert means[task, "mean-gain-over-random-init"] == pytest.approx(np.mean(gains))
    better = [np.sign(top1["rotnet", size] - top1["pirl", size]) for size in (32, 24)]
    assert means["rotnet", "mean-rank"] == 1.5 - np.mean(better) / 2
    report = study.report.read_text()
    assert "Mean gain over 2 datasets" in report and f"{shapes.name}, 24 px" in report
    history = tracked(study.root)
    assert len(history) == 4 + 1, "four encoders and the comparison"
    values: Counter = Counter()
    for file in study.root.glob("wandb/offline-run-*/run-*.wandb"):
        for record, _ in offline_runs.records(file.read_bytes()):
            row = offline_runs._parse(record)
            names = [item.key or ".".join(item.nested_key) for item in row.history.item]
            values.update((file.stem, name) for name in names if name.startswith("eval/"))
    assert set(values.values()) == {1} and len({name for _, name in values}) == 2 * len(records[0]["numbers"])
