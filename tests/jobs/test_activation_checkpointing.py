"""`--activation-checkpointing` as a user meets it: the same run, and what it does not go with."""

import json

import pytest

from jobs.commands.pretrain import main
from jobs.config.recipe import PretrainConfig
from jobs.config.runtime import RuntimeConfig
from jobs.pretraining.run import prepare_training
from jobs.study.folder import Study
from ssl_core.errors import UserError
from ssl_core.tasks.rotnet import RotNet

pytestmark = pytest.mark.slow


def test_it_is_the_same_run_with_the_same_weights(shapes, tmp_path):
    """One that stopped without it would go on with it: names and digests are equal."""
    digests = {}
    for storage, more in (("without", []), ("with", ["--activation-checkpointing"])):
        arguments = ["--data", shapes, "--size", 32, "--steps", 2, "--batch", 8, "--storage", tmp_path / storage]
        main(["rotnet", *map(str, arguments), "--wandb", "off", *more])
        (record,) = (tmp_path / storage).glob("*/pretrain/*/encoder.json")
        digests[record.parent.name] = {*digests.get(record.parent.name, ()), json.loads(record.read_text())["digest"]}
    assert len(digests) == 1 and all(len(found) == 1 for found in digests.values())


def test_it_reaches_the_training_loop(shapes, tmp_path):
    recipe = PretrainConfig(task=RotNet.Config(batch=8), data=str(shapes), size=32)
    for on in (False, True):
        runtime = RuntimeConfig(wandb="off", activation_checkpointing=on)
        training = prepare_training(recipe, Study(str(tmp_path / "s")), runtime)
        assert training.train_config.activation_checkpointing is on


@pytest.mark.parametrize(
    ("words", "message"),
    [("--compile", "does not go with --compile"), ("--encoder torchvision:resnet18 --size 64", "has no blocks")],
)
def test_what_cannot_be_done_is_refused_in_one_line(words, message, shapes, tmp_path):
    arguments = ["--data", shapes, "--size", 32, "--storage", tmp_path, "--wandb", "off", *words.split()]
    with pytest.raises(UserError, match=message) as refused:
        main(["rotnet", *map(str, arguments), "--activation-checkpointing"])
    assert "\n" not in str(refused.value) and not list(tmp_path.iterdir())
