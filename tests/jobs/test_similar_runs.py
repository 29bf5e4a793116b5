"""A run that is trained anew beside a similar one says why."""

import json
from dataclasses import replace

import pytest

from jobs.config.recipe import PretrainConfig
from jobs.config.runtime import RuntimeConfig
from jobs.pretraining.run import Training, prepare_training
from jobs.pretraining.similar_runs import differs_from_earlier
from jobs.study.folder import Study
from ssl_core.optim import Optim
from ssl_core.tasks.rotnet import RotNet


@pytest.fixture
def prepared(shapes, tmp_path):
    """prepared(recipe's changes) -> a run; `begun` leaves the file that says what it is."""

    def make(begun: bool = False, **changes) -> Training:
        recipe = replace(PretrainConfig(task=RotNet.Config(batch=16), data=str(shapes), size=32, steps=10), **changes)
        one = prepare_training(recipe, Study.open(str(tmp_path), "study"), RuntimeConfig(wandb="off", decode_threads=1))
        if begun:
            one.folder.mkdir(parents=True)
            identity = one.recipe.identity(one.recipe.source())
            (one.folder / "config.json").write_text(json.dumps(identity))
        return one

    return make


def test_what_differs_from_the_most_similar_run_is_named(prepared):
    first = prepared(begun=True)
    assert differs_from_earlier(first) == "", "it is continued"
    longer = prepared(steps=20)
    assert (
        differs_from_earlier(longer)
        == f"{longer.name} is trained from the beginning, beside {first.name}: steps 20, not 10"
    )
    prepared(begun=True, steps=30, seed=1)
    both = prepared(steps=20, seed=1)
    assert differs_from_earlier(both).endswith(": steps 20, not 30")
    other = prepared(task=RotNet.Config(batch=8, rotations=1, optim=Optim(lr=1.0, momentum=0.5)))
    assert differs_from_earlier(other) == "", "they have little to do with each other"


def test_a_folder_that_has_changed_is_named(prepared, tmp_path):
    first = prepared(begun=True)
    config = json.loads((first.folder / "config.json").read_text())
    (first.folder / "config.json").unlink()
    (first.folder.parent / "rotnet-000000000000").mkdir()
    (first.folder.parent / "rotnet-000000000000" / "config.json").write_text(json.dumps({**config, "dataset": "0"}))
    assert differs_from_earlier(first).endswith(
        "beside rotnet-000000000000: its images are others (a file was added, removed or changed)"
    )
