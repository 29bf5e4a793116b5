"""What a cluster is asked to run: checked here, quoted, with paths that mean the same there."""

import shlex

import pytest

from jobs.submission.command import prepare_command
from ssl_core.errors import UserError


def of(*words: str, here: bool = False) -> str:
    return prepare_command(list(words), here).line("python")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("study demo --storage /mnt/runs", "study demo --storage /mnt/runs"),
        ("study demo --storage s3://bucket/runs --data s3://bucket/images",) * 2,
        ("pretrain rotnet --storage=~/runs --workers 4", "pretrain rotnet '--storage=~/runs' --workers 4"),
        ("pretrain rotnet --storage /r --workers 0", "pretrain rotnet --storage /r --workers 0"),
        (
            "pretrain rotnet --storage /r --data fashion-mnist",
            "pretrain rotnet --storage /r --data fashion-mnist --workers 1",
        ),
        ("evaluate /mnt/runs/demo --protocols knn", "evaluate /mnt/runs/demo --protocols knn --workers 1"),
        ("compare s3://bucket/runs/demo", "compare s3://bucket/runs/demo"),
        ("compare /r/one /r/two --name both", "compare /r/one /r/two --name both"),
        ("pack cifar10 /mnt/small", "pack cifar10 /mnt/small"),
        ("doctor", "doctor"),
        ("sweep --storage /r --lr-factors 1 3", "sweep --storage /r --lr-factors 1 3"),
    ],
)
def test_elsewhere_what_is_absolute_stays(words, line):
    assert of(*words.split()) == f"python -m jobs.cli {line}"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("study demo", "study demo --storage {}/runs"),
        ("study demo --storage out --data photos", "study demo --storage {}/out --data {}/photos"),
        ("study demo --storage=../out", "study demo --storage={}/out"),
        ("pretrain rotnet --name runs --workers 2", "pretrain rotnet --name runs --workers 2 --storage {}/runs"),
        ("pretrain rotnet --device cpu --storage cpu", "pretrain rotnet --device cpu --storage {}/cpu --workers 1"),
        ("evaluate --workers 1 runs/demo --wandb off", "evaluate --workers 1 {}/runs/demo --wandb off"),
        (
            "evaluate new --data photos --encoder timm:resnet18=a.pth --encoder old/run --encoder timm:x=random "
            "--workers 1",
            "evaluate {}/new --data {}/photos --encoder timm:resnet18={}/a.pth --encoder {}/old/run "
            "--encoder timm:x=random --workers 1",
        ),
        ("compare runs/one runs/two", "compare {}/runs/one {}/runs/two"),
        ("sweep --data photos", "sweep --data {}/photos --storage {}/runs"),
        ("pack photos small", "pack {}/photos {}/small"),
        ("pack cifar10 cifar10", "pack cifar10 {}/cifar10"),
    ],
)
def test_on_this_machine_paths_are_made_absolute(words, line, tmp_path, monkeypatch):
    place = tmp_path / "deeper" if "../" in words else tmp_path
    place.mkdir(exist_ok=True)
    monkeypatch.chdir(place)
    assert of(*words.split(), here=True) == f"python -m jobs.cli {line.replace('{}', str(tmp_path))}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("study demo", "--storage runs: a relative path"),
        ("study demo --storage /mnt/runs --data photos", "--data photos: a relative path"),
        ("evaluate runs/demo", "STUDY runs/demo: a relative path"),
        ("evaluate /r --encoder timm:resnet18=a.pth", "--encoder a.pth: a relative path"),
        ("pack /mnt/photos small", "DST small: a relative path"),
        ("pretrain rotnet --storage /r --workers many", "--workers many: expected"),
        ("pretrain rotnet --storage /r --name a/b", "expected a plain folder name"),
        ("study demo --storage /r --protocols linaer", "there is collapse, "),
        ("pack /a /b --side 1", "--side is 1"),
        ("submit study demo", "no verb 'submit' to submit"),
        ("studdy demo", "did you mean study?"),
        ("study demo --storage s3://key:hidden@bucket/runs", "give keys in the environment"),
        ("study demo --storage /r --data=https://host/a?sig=hidden", "give keys in the environment"),
    ],
)
def test_refused_before_it_is_submitted(words, said):
    with pytest.raises(UserError) as error:
        of(*words.split())
    assert said in str(error.value) and "hidden" not in str(error.value)


def test_words_reach_the_verb_as_they_were_typed():
    """Whatever a shell would make of them."""
    words = ["study", "demo", "--data", "/a b/$HOME;'x\"", "--storage", "/r", "--name", "`id` *"]
    assert shlex.split(of(*words)) == ["python", "-m", "jobs.cli", *words]
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


def test_a_comparison_of_nothing_is_refused():
    with pytest.raises(UserError, match="expected folders of studies"):
        of("compare")
