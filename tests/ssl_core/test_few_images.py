"""Protocols on small, lopsided and dirty test sets: what cannot be measured is left out, with a reason."""

from dataclasses import replace
from io import BytesIO
from typing import BinaryIO

import numpy as np
import pytest
import torch
from support.masked_folders import noise_masks
from torch import nn

import ssl_core.encoders.build as encoders
from ssl_core.data.dataset import Arrays, Source
from ssl_core.data.split import Split
from ssl_core.errors import Diverged, UserError
from ssl_core.evaluation.coverage import missing_classes
from ssl_core.evaluation.features import extract
from ssl_core.evaluation.frozen_encoder import FrozenEncoder, Splits, make_splits
from ssl_core.evaluation.protocol import Result, protocols
from ssl_core.evaluation.protocols.finetune import FineTuning
from ssl_core.evaluation.protocols.lowshot_finetune import LowShotFineTuning
from ssl_core.evaluation.protocols.nonlinear import NonlinearProbe
from ssl_core.storage.records import MissingClasses

QUICK = {
    "finetune": FineTuning.Config(epochs=1, learning_rates=(0.01,)),
    "lowshot_finetune": LowShotFineTuning.Config(steps=1, batch=4),
    "nonlinear": NonlinearProbe.Config(epochs=1, batch=4),
}


def source(train: list[int], test: list[int], constant: bool = False) -> Source:
    """Noise, or images that are all the same, with these labels and masks of noise."""
    rng = np.random.default_rng(0)

    def part(labels: list[int]) -> Arrays:
        images = rng.integers(0, 256, (len(labels), 16, 16, 3)).astype(np.uint8)
        return Arrays(np.full_like(images, 77) if constant else images, np.array(labels))

    masks = noise_masks(len(train), len(test), 16)
    return Source("made up", "digest", 16, part(train), part(test), ("a", "b"), masks=masks)


def model(given: Source, encoder: nn.Module | None = None) -> FrozenEncoder:
    return FrozenEncoder(
        encoder or encoders.build("convnet", 16, 0), given, "dataset", Splits(), 0, torch.device("cpu"), 1
    )


def run(protocol: str, given: Source) -> Result:
    module, subject = protocols()[protocol], model(given)
    what = extract(subject) if module.on == "features" else subject
    return module.run(what, QUICK.get(protocol, module.Config()), 0)


GIVEN = {
    "one of each": source([0, 1, 0], [0]),
    "two": source([0, 1, 0, 1], [0, 1]),
    "three of one class": source([0, 0, 0, 1], [1, 1, 1]),
    "a class never seen in training": source([0, 0, 0, 0], [0, 1]),
    "all the same": source([0, 1] * 3, [0, 1, 0], constant=True),
}


@pytest.mark.parametrize("protocol", protocols())
@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.slow
def test_every_number_is_finite_or_left_out(protocol, name):
    result = run(protocol, GIVEN[name])
    assert np.isfinite(list(result.numbers.values())).all()
    if result.correct is not None:
        assert len(result.correct) == len(GIVEN[name].test)
    if protocols()[protocol].headline not in result.numbers:
        assert result.notes


def test_one_test_image_tells_of_no_other():
    """Neither how far it lies from others, nor in how many directions they do."""
    given = GIVEN["one of each"]
    assert set(run("collapse", given).numbers) == {"width"} and run("collapse", given).notes
    assert set(run("invariance", given).numbers) == {"alignment", "probe/rotation", "probe/jigsaw"}
    separation = run("semantic_similarity", given)
    assert "silhouette" not in separation.numbers and "purity@1" in separation.numbers and len(separation.notes) == 2
    assert not any(run(protocol, GIVEN["two"]).notes for protocol in ("collapse", "invariance"))


@pytest.mark.slow
def test_fewer_images_than_neighbors_or_shots_are_noted():
    """Of four labeled images one is held out."""
    assert run("knn", GIVEN["two"]).notes == ("fewer training images than 20 and 200 neighbors: all 3 count",)
    assert run("retrieval", GIVEN["two"]).notes == ("fewer training images than 8 neighbors: all 3 count",)
    assert run("lowshot", GIVEN["three of one class"]).notes[0].startswith("no k5 and no k20: the rarest class")
    assert not run("lowshot", source([0, 1] * 20, [0, 1])).notes


class Nothing(nn.Module):
    """What weights that have diverged make of any image."""

    def forward(self, x):
        return [torch.full((len(x), 8, 2, 2), torch.nan)]


@pytest.mark.parametrize("protocol", protocols())
def test_features_that_are_not_finite_get_no_number(protocol):
    """A classifier would name some class, and be right by chance."""
    module, subject = protocols()[protocol], model(source([0, 1] * 8, [0, 1] * 3), Nothing())
    with pytest.raises(Diverged, match="not finite"):
        module.run(extract(subject) if module.on == "features" else subject, module.Config(), 0)


class Broken(Split):
    """Files of which only some can be decoded."""

    def __init__(self, split: Arrays, good: set[int]):
        self.split, self.good, self.labels = split, good, split.labels

    def open(self, i: int) -> BinaryIO:
        return self.split.open(i) if i in self.good else BytesIO(b"no image")

    def size(self, i: int) -> int:
        return self.split.size(i)

    def name(self, i: int) -> str:
        return self.split.name(i)


def test_labels_are_those_of_what_can_be_decoded():
    given = source([0, 1] * 6, [0, 1, 0, 1, 0])
    given = replace(given, test=Broken(given.test, {0, 2, 4}))
    subject = model(given)
    assert subject.labels["test"].tolist() == [0, 1, 0, 1, 0], "nothing is read yet"
    assert extract(subject).labels["test"].tolist() == subject.labels["test"].tolist() == [0, 0, 0]


def test_a_split_without_an_image_that_can_be_decoded_is_refused():
    given = source([0, 1] * 6, [0, 1, 0])
    with pytest.raises(UserError, match="none of the 3 test images can be decoded"):
        extract(model(replace(given, test=Broken(given.test, set()))))
    held = make_splits(given, Splits(), 0)[1]["val"][1]
    fine = set(range(12)) - set(held.tolist())
    with pytest.raises(UserError, match="none of the 2 held-out training images can be decoded"):
        extract(model(replace(given, train=Broken(given.train, fine))))
    with pytest.raises(UserError, match="fewer than two of 12 training images can be decoded"):
        model(replace(given, train=Broken(given.train, {3})))


def test_classes_without_an_image_are_named():
    found = missing_classes(
        ("a", "b", "c"), {"train": np.array([0, 1, 2, 1]), "val": np.array([1]), "test": np.array([], int)}
    )
    assert found == {
        "val": MissingClasses(count=2, names=("a", "c")),
        "test": MissingClasses(count=3, names=("a", "b", "c")),
    }
    many = missing_classes([str(i) for i in range(100)], {"test": np.array([0])})
    assert many["test"].count == 99 and len(many["test"].names) == 5
    assert missing_classes((), {"test": np.array([-1, -1])}) == {}
