"""Options from a file: every verb prints what it reads back, the command line wins, and what is wrong is one line."""

import importlib
import json
import re
import tomllib
from pathlib import Path

import pytest
from support.command import ROOT

from jobs.cli import VERBS
from jobs.config.options import OWN, choice_of, flat, values_of
from jobs.config.parsing import parse, parse_given
from jobs.study.folder import Study
from ssl_core.errors import UserError

SMALLEST = {
    "study": ("demo",),
    "pretrain": ("rotnet",),
    "evaluate": ("runs/demo",),
    "compare": ("runs/demo", "runs/other"),
    "export": ("runs/demo/x", "--format", "onnx", "--output", "x.onnx"),
    "embed": ("timm:resnet18", "--data", "photos", "--output", "x.npy"),
    "pack": ("photos", "small"),
    "data": ("photos",),
    "jobs": ("logs", "demo-1"),
}


def kind(verb: str) -> type:
    module = importlib.import_module(VERBS[verb][0])
    return module.options_type() if hasattr(module, "options_type") else module.Options


def options(verb: str, *arguments) -> dict:
    """All options by name, as --print-config has them."""
    return values_of(parse(kind(verb), verb, [*map(str, arguments)]))


def printed(capsys, verb: str, *arguments) -> str:
    with pytest.raises(SystemExit, match=r"^0$"):
        parse(kind(verb), verb, [*map(str, arguments), "--print-config"])
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_printed_is_read_back(capsys, tmp_path, verb):
    said = printed(capsys, verb, *SMALLEST.get(verb, ()))
    (tmp_path / "c.toml").write_text(said)
    assert tomllib.loads(said) and printed(capsys, verb, "--config", tmp_path / "c.toml") == said
    assert printed(capsys, verb, "--config", json.dumps(tomllib.loads(said))) == said


@pytest.mark.parametrize(
    "words",
    [
        ("pretrain", "jigsaw", "--lr", 0.3, "--lr-milestones", 0.5, 0.75, "--grid", 2, "--compile", "--epochs", 2),
        ("pretrain", "rotnet-cifar10-nin", "--steps", 3),
        ("pretrain", "rotnet-imagenet-resnet50", "--size", "None", "--data", "photos"),
        ("study", "full", "--seeds", 3, "--protocols", "knn", "linear", "--name", "a b"),
        ("study", "--tasks", "pirl", "rotnet-cifar10-nin", "--transfer", "a@64", "b", "--epochs", 1, 2.5),
        ("sweep", "--tasks", "rotnet", "--lrs", 0.1, 1, "--name", "None"),
        ("evaluate", "runs/x", "--encoder", "timm:resnet18", "--encoder", "timm:vgg11=a#b", "--val-fraction", 0.1),
        ("embed", "timm:a", "--data", "photos", "--output", "x.npy", "--stage", 4, "--pool", "2x2"),
        ("embed", "timm:a", "--data", "photos", "--output", "x.npy", "--stage", "cls", "--size", 64),
        ("pack", "photos", "small", "--side", 64),
        ("jobs", "list"),
        ("doctor", "--no-ray"),
    ],
)
def test_given_options_come_back(capsys, tmp_path, words):
    said = printed(capsys, *words)
    (tmp_path / "c.toml").write_text(said)
    assert printed(capsys, words[0], "--config", tmp_path / "c.toml") == said
    assert options(words[0], "--config", tmp_path / "c.toml") == options(*words)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.slow
def test_each_name_is_one_option(verb):
    choice = choice_of(kind(verb))
    for more in [inner for inner, _ in choice.choices.values()] if choice else [None]:
        names = [field.name for one in filter(None, (kind(verb), more)) for field in flat(one)]
        names += [kind(verb).choice_key] if choice else []
        assert len(set(names)) == len(names) and set(names) >= OWN - {"document"}
        assert bool(choice) == bool(kind(verb).choice_key)


def test_toml_with_either_spelling(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('task = "jigsaw"\ngrid = 2\nlr = 1  # a whole number is a number\ngrad-accumulation = 2\n')
    found = options("pretrain", "--config", path)
    assert (found["task"], found["grid"], found["lr"], found["grad_accumulation"]) == ("jigsaw", 2, 1.0, 2)
    assert found | {"grid": 0, "lr": 0.6, "grad_accumulation": 1} == options("pretrain", "jigsaw")


def test_example_of_the_docs(tmp_path):
    study, run = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/studies.md").read_text(), re.DOTALL)
    (tmp_path / "run.toml").write_text(run)
    words = ["--data", "fashion-mnist", "--epochs", 3, "--grad-accumulation", 2, "--lr-milestones", 0.5, 0.75]
    assert options("pretrain", "--config", tmp_path / "run.toml") == options("pretrain", "jigsaw", *words)
    (tmp_path / "birds.toml").write_text(study)
    found = options("study", tmp_path / "birds.toml")
    assert (found["name"], found["seeds"], found["num_labels"], found["workers"]) == ("birds", 3, 3000, "2")
    assert [one.config().optim.lr for one in found["tasks"]][1:] == [0.01, 0.1]
    assert [(one.data, one.size, one.protocols) for one in found["transfer"]] == [
        ("labeled-photos", None, ()),
        ("cifar10", 32, ("linear", "knn")),
    ]


def test_command_line_overrides_the_file(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"task": "jigsaw", "seed": 3, "steps": 5, "compile": True, "storage": "s"}))
    found = options("pretrain", "--seed", 4, "--config", path, "--no-compile")
    assert [found[key] for key in ("task", "seed", "steps", "compile", "storage")] == ["jigsaw", 4, 5, False, "s"]
    found = options("pretrain", "rotnet", f"--config={path}")
    assert [found[key] for key in ("task", "seed", "steps", "lr")] == ["rotnet", 3, 5, 0.06]
    assert options("pretrain", "--name", "rotnet", "--config", path)["task"] == "jigsaw"
    assert options("compare", "b", "--config", '{"studies": ["a", "c"]}')["studies"] == ("b",)
    assert options("evaluate", "b", "--config", '{"study": "a", "size": 8}')["study"] == "b"
    said = '{"study": "a", "data": "d", "encoder": ["timm:a", "timm:b"]}'
    assert options("evaluate", "--encoder", "timm:c", "--config", said)["encoder"] == ("timm:c",)


def test_task_may_be_on_the_command_line_alone():
    found = options("pretrain", "jigsaw", "--config", '{"grid": 2, "steps": 7}')
    assert (found["task"], found["grid"], found["steps"]) == ("jigsaw", 2, 7)


@pytest.mark.parametrize(
    "words",
    [
        ("rotnet-cifar10-nin", "--steps", 3, "--epochs", 200),  # which is what it has of itself
        ("rotnet", "--steps", 1000, "--epochs", 1),
        ("rotnet", "--steps", 3, "--config", '{"epochs": 1}'),
        ("rotnet-cifar10-nin", "--config", '{"epochs": 200.0, "steps": 3}'),
    ],
)
@pytest.mark.slow
def test_two_lengths_are_refused_whatever_they_are(words):
    with pytest.raises(UserError, match="--steps and --epochs are both given: choose one"):
        options("pretrain", *words)


def test_recipes_own_epochs_give_way_to_steps():
    found = options("pretrain", "rotnet-cifar10-nin", "--steps", 3)
    assert (found["steps"], found["epochs"]) == (3, None)
    found = options("pretrain", "rotnet-cifar10-nin", "--epochs", 200)
    assert (found["steps"], found["epochs"]) == (None, 200.0)


def test_what_was_given_is_known():
    """Of both, with what overrides what; a default is not given."""
    parsed = parse_given(kind("pretrain"), "pretrain", ["--seed=0", "--no-compile", "--config", '{"task": "rotnet"}'])
    assert parsed.given == {"seed", "compile", "config", "task"}


def test_evaluation_of_a_study_stays_as_it_was(tmp_path):
    """What is not given is as the study has it, whether the rest comes from a file or not."""
    saved = {"protocols": ["knn"], "num_labels": 50, "val_fraction": 0.2, "probe_seed": 7}
    Study(tmp_path).describe(evaluation=saved)
    found = options("evaluate", tmp_path, "--val-fraction", 0.3, "--config", '{"num_labels": 60}')
    kept = {key: found[key] for key in saved}
    assert kept == {"protocols": ("knn",), "num_labels": 60, "val_fraction": 0.3, "probe_seed": 7}


@pytest.mark.parametrize(
    ("verb", "text", "said"),
    [
        ("pretrain", '{"task": "rotnt"}', "task rotnt: did you mean rotnet?"),
        ("pretrain", '{"task": 3}', "task 3: there is byol, colorize, context, "),
        ("pretrain", '{"tsak": "rotnet"}', "no option tsak: did you mean task?"),
        ("pretrain", '{"task": "rotnet", "stesp": 3}', "no option stesp: did you mean steps?"),
        ("pretrain", '{"task": "rotnet", "config": "x"}', "no option config: "),
        ("pretrain", '{"task": "rotnet", "grid": 3}', "rotnet has no option grid: jigsaw, "),
        ("pretrain", '{"task": "rotnet", "steps": "3"}', 'steps is "3", expected a valid integer'),
        ("pretrain", '{"task": "rotnet", "steps": 3.5}', "steps is 3.5, expected a valid integer"),
        ("pretrain", '{"task": "rotnet", "batch": null}', "batch is null, expected a valid integer"),
        ("pretrain", '{"task": "rotnet", "compile": 1}', "compile is 1, expected a valid boolean"),
        ("pretrain", '{"task": "rotnet", "lr_milestones": "x"}', 'lr_milestones[0] is "x", expected a valid number'),
        ("pretrain", '{"task": "rotnet", "device": "gpu"}', "device is \"gpu\", expected 'auto', 'cpu' or 'cuda'"),
        ("pretrain", '{"task": "rotnet", "seed": 1, "seed": 2}', "seed is there twice"),
        ("pretrain", '{"grad-accumulation": 1, "grad_accumulation": 2}', "grad_accumulation is there twice"),
        ("pretrain", '{"task": "rotnet", "steps": 3, "epochs": 1}', "choose one"),
        ("pretrain", "{", "is no JSON"),
        ("pretrain", '{"seed": 1}', "pretrain: expected one of byol, colorize, context, "),
        ("evaluate", '{"size": 32}', "evaluate: expected STUDY"),
    ],
)
def test_wrong_options_are_one_line(verb, text, said, tmp_path):
    (tmp_path / "c.json").write_text(text)
    for given in (text, str(tmp_path / "c.json")):
        with pytest.raises(UserError) as error:
            parse(kind(verb), verb, ["--config", given])
        assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.toml", None, "cannot be read: No such file"),
        ("c.yaml", b"task: rotnet", "expected a name that ends with .toml or .json"),
        ("c.toml", b"task = rotnet", "is no TOML"),
        ("c.toml", b"seed = 1\nseed = 2", "is no TOML"),
        ("c.toml", b"[optim]\nlr = 0.1", "no option optim: "),
        ("c.toml", b"[runtime]\nlr = 0.1", "[runtime]: no option lr: there is activation_checkpointing, "),
        ("c.toml", b'task = "rotnet"\nsteps = 2024-01-01', 'steps is "2024-01-01", expected a valid integer'),
        ("c.json", b"[1]", "expected an object of options"),
        ("c.json", b'{"seed": \xff}', "expected text in UTF-8"),
        ("folder.json", "", "cannot be read: Is a directory"),
    ],
)
def test_files_that_cannot_be_read(name, content, said, tmp_path):
    path = tmp_path / name
    if content == "":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        parse(kind("pretrain"), "pretrain", ["--config", str(path)])
    assert said in str(error.value) and str(path) in str(error.value)


def test_config_without_a_file():
    with pytest.raises(UserError, match="--config"):
        parse(kind("doctor"), "doctor", ["--config"])


@pytest.mark.slow
def test_the_same_run_follows(tilespin, shapes, tmp_path):
    """Trained by a file in TOML, it has the name and weights of the run that the command line makes."""
    words = ["--data", shapes, "--size", 32, "--batch", 8, "--steps", 2, "--wandb", "off", "--device", "cpu"]
    tilespin("pretrain", "rotnet", *words, "--storage", tmp_path / "a", "--name", "x")
    said = tilespin("pretrain", "rotnet", *words, "--name", "x", "--print-config").stdout
    (tmp_path / "run.toml").write_text(said)
    tilespin("pretrain", "--config", tmp_path / "run.toml", "--storage", tmp_path / "b")
    (one,), (other,) = (list(Path(tmp_path / place).glob("x/pretrain/*/encoder.json")) for place in "ab")
    assert one.parent.name == other.parent.name
    digests = [json.loads(path.read_text())["digest"] for path in (one, other)]
    assert digests[0] == digests[1]
