"""The smallest crop of an image file is an option of each task, which old runs need not know of."""

import json

import numpy as np
import pytest
import torch
from support.jpegs import CPU, batches, jpeg, picture, put
from support.loaders import each_kind

from jobs.config.recipe import PretrainConfig, short_hash
from jobs.config.runtime import RuntimeConfig
from jobs.pretraining.run import prepare_training
from jobs.pretraining.similar_runs import differs_from_earlier
from jobs.pretraining.worker import run_training
from jobs.study.folder import Study
from ssl_core.data.dataset import Arrays, Source, open_source
from ssl_core.data.decoding.crops import min_side, random_crops
from ssl_core.data.loaders.resident import bytes_needed
from ssl_core.data.sampler import ShuffledSampler
from ssl_core.errors import UserError
from ssl_core.tasks.rotnet import RotNet

IMAGES = Arrays(np.zeros((9, 32, 32, 3), np.uint8), np.zeros(9, np.int64))
DECODED = Source("decoded", "0123", 32, IMAGES, IMAGES)


def recipe(data: str = "cifar10", **options) -> PretrainConfig:
    return PretrainConfig(task=RotNet.Config(batch=8, **options), data=data, size=32, steps=2)


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    return put(tmp_path_factory.mktemp("squares"), *(jpeg(picture(64, 64, seed)) for seed in range(10)))


@each_kind
def test_whole_squares_if_nothing_may_be_cut_off(squares, kind):
    """Of square files the training's images are then the evaluation's, to within what DALI rounds."""
    for batch in batches(kind, squares, 32, min_area=1.0):
        [whole] = kind(squares, 32, CPU, 1).evaluation(batch.ids.numpy())
        assert (batch.images.int() - whole.images.int()).abs().float().mean() < 2
    cut = torch.cat([batch.images for batch in batches(kind, squares, 32)])
    assert (cut.int() - torch.cat([b.images for b in batches(kind, squares, 32, min_area=1.0)]).int()).abs().max() > 20


@pytest.mark.parametrize("least", [0.04, 0.25, 1.0])
def test_areas_are_uniform_above_the_least(least):
    areas = random_crops(ShuffledSampler(4000, 0), np.arange(4000), least).boxes[:, 0]
    assert least <= areas.min() and areas.max() <= 1
    assert areas.mean() == pytest.approx((1 + least) / 2, abs=0.02)


def test_images_are_kept_as_large_as_the_smallest_crop_needs(squares):
    """Else it would be enlarged."""
    assert [min_side(32, area) for area in (1.0, 0.25, 0.04)] == [32, 64, 160]
    assert bytes_needed(squares, 16, 1.0) < bytes_needed(squares, 16) < bytes_needed(squares, 16, 0.04)


@pytest.mark.parametrize("source", ["arrays", "files"])
def test_default_changes_no_name(shapes, source):
    """Names are hashes of what was there before the option was; files record it, images in memory do not have it."""
    source = DECODED if source == "arrays" else open_source(str(shapes), 32)
    found = recipe().resolved(source, "cpu")
    before = found.identity(source)
    assert ("loader_min_area" in before["task"]) == (source is not DECODED)
    assert before["task"].pop("loader_min_area", 0.25) == 0.25
    assert found.run_name(source) == f"rotnet-{short_hash(before)}"


def test_another_value_is_another_run(shapes):
    source = open_source(str(shapes), 32)
    names = {recipe(loader_min_area=least).resolved(source, "cpu").run_name(source) for least in (0.25, 0.5, 1.0)}
    assert len(names) == 3


@pytest.mark.parametrize("least", [0.0, -1.0, 1.5, float("nan")])
def test_impossible_values(shapes, least):
    with pytest.raises(UserError, match=r"--loader-min-area is .*expected a share above 0"):
        recipe(loader_min_area=least).resolved(open_source(str(shapes), 32), "cpu")


def test_images_in_memory_cannot_be_cut():
    """A value that would be without effect is not taken in silence."""
    with pytest.raises(UserError, match=r"--loader-min-area 0\.5: the images of decoded are no files"):
        recipe(loader_min_area=0.5).resolved(DECODED, "cpu")


def test_training_uses_and_records_it(shapes, tmp_path):
    digests = []
    for least in (0.25, 1.0):
        study = Study.open(str(tmp_path), str(least))
        study.describe()
        training = prepare_training(recipe(str(shapes), loader_min_area=least), study, RuntimeConfig(wandb="off"))
        run_training(training, "cpu")
        assert json.loads((training.folder / "config.json").read_text())["task"]["loader_min_area"] == least
        digests.append(json.loads((training.folder / "encoder.json").read_text())["digest"])
    assert digests[0] != digests[1]


def test_earlier_runs_had_the_default(shapes, tmp_path):
    """Their config.json does not name it; it is not said to differ."""
    study = Study.open(str(tmp_path), "x")
    for name, options in (("first", {}), ("second", {"crop": 0.5})):
        training = prepare_training(recipe(str(shapes), **options), study, RuntimeConfig(wandb="off"))
        if name == "first":
            training.folder.mkdir(parents=True)
            config = training.recipe.identity(open_source(str(shapes), 32))
            del config["task"]["loader_min_area"]
            (training.folder / "config.json").write_text(json.dumps(config))
    assert differs_from_earlier(training).endswith(f": crop 0.5, not {RotNet.Config().crop}")
