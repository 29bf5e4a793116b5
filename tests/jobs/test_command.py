"""What a cluster is asked to run: checked here, quoted, with paths that mean the same there."""

import json
import shlex
import tomllib
from importlib import import_module

import pytest

from jobs.cli import VERBS
from jobs.config.options import values_of
from jobs.config.parsing import parse
from jobs.submission.command import PATH_OPTIONS, prepare_command
from ssl_core.errors import UserError

# What the built-in study says, sent as it is
DEMO = dict(name="demo", tasks=["rotnet", "jigsaw", "context"], encoders=["convnet"], budget=[2800.0], data="cifar10")


def of(*words: str, here: bool = False) -> dict:
    """The options that a cluster is given, read from the line that it is to run."""
    command = prepare_command(list(words), here)
    start = ["python", "-m", "jobs.cli", words[0]]
    line = shlex.split(command.line("python"))
    assert line[:4] == start and (line[4:5] == ["--config"] or line == start)
    return json.loads(line[5]) if line[5:] else {}


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("study demo --storage /mnt/runs", dict(DEMO, storage="/mnt/runs")),
        (
            "study demo --storage s3://bucket/runs --data s3://bucket/images",
            dict(DEMO, storage="s3://bucket/runs", data="s3://bucket/images"),
        ),
        (
            "study --tasks pirl --storage /r --transfer /mnt/birds@64 cifar10 --init random timm:vgg11=/w.pth /r/x/y",
            dict(
                tasks=["pirl"],
                storage="/r",
                transfer=[dict(data="/mnt/birds", size=64), "cifar10"],
                init=["random", "timm:vgg11=/w.pth", "/r/x/y"],
            ),
        ),
        ("pretrain rotnet --storage=~/runs --workers 4", dict(task="rotnet", storage="~/runs", workers="4")),
        ("pretrain rotnet --storage /r --workers 0", dict(task="rotnet", storage="/r", workers="0")),
        (
            "pretrain rotnet --storage /r --data fashion-mnist --no-compile",
            dict(task="rotnet", storage="/r", data="fashion-mnist", workers="1", compile=False),
        ),
        ("evaluate /mnt/runs/demo --protocols knn", dict(study="/mnt/runs/demo", protocols=["knn"], workers="1")),
        ("evaluate /r --num-labels 12000 --workers 2", dict(study="/r", num_labels=12_000, workers="2")),
        ("compare s3://bucket/runs/demo", dict(studies=["s3://bucket/runs/demo"])),
        ("compare /r/one /r/two --name both", dict(studies=["/r/one", "/r/two"], name="both")),
        ("pack cifar10 /mnt/small", dict(src="cifar10", dst="/mnt/small")),
        ("doctor", {}),
        ("sweep --storage /r --lr-factors 1 3", dict(storage="/r", lr_factors=[1, 3])),
    ],
)
def test_elsewhere_what_is_absolute_stays(words, options):
    """Only what was given is sent: what an evaluation leaves open is as the study has it."""
    assert of(*words.split()) == options


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("study demo", dict(DEMO, storage="{}/runs")),
        ("study demo --storage out --data photos", dict(DEMO, storage="{}/out", data="{}/photos")),
        ("study demo --storage=../out", dict(DEMO, storage="{}/out")),
        (
            "pretrain rotnet --name runs --workers 2",
            dict(task="rotnet", name="runs", workers="2", storage="{}/runs"),
        ),
        (
            "pretrain rotnet --device cpu --storage cpu",
            dict(task="rotnet", device="cpu", storage="{}/cpu", workers="1"),
        ),
        (
            "evaluate --workers 1 runs/demo --wandb off",
            dict(study="{}/runs/demo", workers="1", wandb="off"),
        ),
        (
            "evaluate new --data photos --encoder timm:resnet18=a.pth#b --encoder old/run --encoder timm:x=random "
            "--encoder timm:vgg11 --workers 1",
            dict(
                study="{}/new",
                data="{}/photos",
                encoder=["timm:resnet18={}/a.pth#b", "{}/old/run", "timm:x=random", "timm:vgg11"],
                workers="1",
            ),
        ),
        ("compare runs/one runs/two", dict(studies=["{}/runs/one", "{}/runs/two"])),
        ("sweep --data photos", dict(data="{}/photos", storage="{}/runs")),
        ("pack photos small", dict(src="{}/photos", dst="{}/small")),
        ("pack cifar10 cifar10", dict(src="cifar10", dst="{}/cifar10")),
    ],
)
def test_on_this_machine_paths_are_made_absolute(words, options, tmp_path, monkeypatch):
    place = tmp_path / "deeper" if "../" in words else tmp_path
    place.mkdir(exist_ok=True)
    monkeypatch.chdir(place)
    assert of(*words.split(), here=True) == json.loads(json.dumps(options).replace("{}", str(tmp_path)))


def test_file_is_sent_with_what_overrides_it(tmp_path, monkeypatch):
    """Its options, not its name, which means nothing on the cluster."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_text('task = "jigsaw"\ndata = "photos"\ngrid = 2\nsteps = 5\nworkers = "0"\n')
    found = of("pretrain", "--config", "run.toml", "--steps", "7", here=True)
    paths = dict(data=f"{tmp_path}/photos", storage=f"{tmp_path}/runs")
    assert found == dict(task="jigsaw", grid=2, steps=7, workers="0", **paths)
    with pytest.raises(UserError, match="--data photos: a relative path"):
        of("pretrain", "--config", "run.toml", "--storage", "/r")


@pytest.mark.parametrize("verb", PATH_OPTIONS)
def test_what_is_sent_is_read_as_it_was_typed(verb):
    """By the verb itself, from the JSON alone."""
    typed = {
        "study": "full --storage /r --data /d --seeds 2 --protocols knn",
        "pretrain": "rotnet-cifar10-nin --steps 5 --storage /r --compile",
        "sweep": "--storage /r --tasks rotnet --lrs 0.1 1",
        "evaluate": "/r/x --encoder timm:a --encoder timm:b=/c.pth --data /d",
        "compare": "/r/one /r/two --wandb off",
        "embed": "timm:a=/b.pth --data /d --output /e.parquet --stage cls --workers 2",
        "pack": "/a /b --side 64 --lossless",
        "doctor": "--no-ray",
        "data": "/d --sample 9 --decode --contact-sheet /sheet.png",
    }[verb].split()
    module = import_module(VERBS[verb][0])
    kind = module.options_type() if hasattr(module, "options_type") else module.Options
    (*_, sent) = shlex.split(prepare_command([verb, *typed], here=False).line("python"))
    read, own = (values_of(parse(kind, verb, words)) for words in (["--config", sent], typed))
    assert read == own | ({"workers": "1"} if own.get("workers") == "0" else {})


def test_options_are_printed_instead(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        of("study", "demo", "--print-config")
    assert tomllib.loads(capsys.readouterr().out)["runtime"]["name"] == "demo"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("study demo", "--storage runs: a relative path"),
        ("study demo --storage /mnt/runs --data photos", "--data photos: a relative path"),
        ("study demo --storage /mnt/runs --transfer photos@32", "--data photos: a relative path"),
        ("study demo --storage /mnt/runs --init timm:resnet18=a.pth", "--init a.pth: a relative path"),
        ("evaluate runs/demo", "STUDY runs/demo: a relative path"),
        ("evaluate /r --encoder timm:resnet18=a.pth", "--encoder a.pth: a relative path"),
        ("pack /mnt/photos small", "DST small: a relative path"),
        ("pretrain rotnet --storage /r --workers many", "--workers many: expected"),
        ("pretrain rotnet --storage /r --name a/b", "expected a plain folder name"),
        ("study demo --storage /r --protocols linaer", "there is attentive, collapse, "),
        ("pack /a /b --side 1", "--side is 1"),
        ("submit study demo", "no verb 'submit' to submit"),
        ("studdy demo", "did you mean study?"),
        ("study demo --storage s3://key:hidden@bucket/runs", "give keys in the environment"),
        ("study demo --storage /r --data=https://host/a?sig=hidden", "give keys in the environment"),
        ("evaluate /r --encoder timm:a=https://u:hidden@host/a", "give keys in the environment"),
        ("pretrain rotnet --storage /r --steps 1000 --epochs 1", "choose one"),
    ],
)
def test_refused_before_it_is_submitted(words, said):
    with pytest.raises(UserError) as error:
        of(*words.split())
    assert said in str(error.value) and "hidden" not in str(error.value)


def test_values_reach_the_verb_as_they_were_typed():
    """Whatever a shell would make of them."""
    words = ["study", "demo", "--data", "/a b/$HOME;'x\"ä", "--storage", "/r", "--name", "`id` *"]
    assert of(*words) == dict(DEMO, data=words[3], storage="/r", name="`id` *")
    command = prepare_command(words, here=False)
    assert command.study == "/r/`id` *" and command.compares
    words = ["pretrain", "rotnet", "--storage", "s3://b/r/", "--data", "/x/photos"]
    assert prepare_command(words, here=False).study == "s3://b/r/photos"


@pytest.mark.parametrize(
    ("words", "study"),
    [
        ("compare /r/one", "/r/one"),
        ("compare /r/one /s/two", "/r/comparison"),
        ("compare s3://b/r/one s3://b/r/two --name both", "s3://b/r/both"),
    ],
)
def test_where_a_comparison_will_be(words, study):
    command = prepare_command(words.split(), here=False)
    assert (command.study, command.name, command.compares) == (study, study.rsplit("/", 1)[-1], True)


@pytest.mark.slow
def test_keys_in_a_file_are_refused(tmp_path):
    (tmp_path / "c.json").write_text('{"storage": "s3://key:hidden@bucket/runs"}')
    with pytest.raises(UserError, match="give keys in the environment") as error:
        of("study", "--config", str(tmp_path / "c.json"))
    assert "hidden" not in str(error.value)


def test_a_comparison_of_nothing_is_refused():
    with pytest.raises(UserError, match="expected folders of studies"):
        of("compare")
