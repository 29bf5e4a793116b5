"""Low-shot protocols: which labels they see, and what they make of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize
from support.structured import FORMAT, stripes

import ssl_core.encoders.build as encoders
from ssl_core.data.dataset import Source
from ssl_core.evaluation.features import Subject
from ssl_core.evaluation.few_labels import Shots, drawn, told
from ssl_core.evaluation.frozen_encoder import Model, Splits
from ssl_core.evaluation.protocols import lowshot, lowshot_finetune


def clusters(apart: float) -> Subject:
    """Four Gaussian classes in 16 dimensions; the first stage is noise."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((4, 16))
    centres *= apart / np.linalg.norm(centres, axis=1, keepdims=True)
    labels = {name: np.arange(count) % 4 for name, count in (("fit", 320), ("held", 80), ("test", 400))}
    noise = [{n: random.standard_normal((len(ys), 16)).astype(np.float32) for n, ys in labels.items()} for _ in "ab"]
    return Subject([noise[0], {n: (x + centres[labels[n]]).astype(np.float32) for n, x in noise[1].items()}], labels, 4)


def test_draws_are_of_their_sizes_nested_and_each_its_own():
    labels = np.repeat([0, 1, 2], [1000, 100, 30])
    found = drawn(labels, Shots(draws=4), seed=0)
    assert set(found) == {"1%", "10%", "k5", "k20"} and all(len(draws) == 4 for draws in found.values())
    counts = {name: [np.bincount(labels[rows]).tolist() for rows in draws] for name, draws in found.items()}
    assert counts == {"1%": [[10, 1, 1]] * 4, "10%": [[100, 10, 3]] * 4, "k5": [[5] * 3] * 4, "k20": [[20] * 3] * 4}
    assert all(set(few) < set(many) for few, many in zip(found["1%"], found["10%"]))
    assert len({tuple(rows) for rows in found["k5"]}) == 4
    assert "k20" not in drawn(labels[:1110], Shots(), seed=0)
    again, other = drawn(labels, Shots(), seed=0), drawn(labels, Shots(), seed=1)
    assert np.array_equal(again["k5"][0], found["k5"][0]) and not np.array_equal(other["k5"][0], found["k5"][0])


def test_mean_and_spread_by_hand():
    assert told("x", [0.2, 0.4, 0.6]) == pytest.approx({"x": 0.4, "x/std": 0.2})
    assert told("x", [0.3]) == {"x": 0.3, "x/std": 0}


def test_finds_what_can_be_told_apart_and_where():
    result = lowshot.run(clusters(apart=8), lowshot.Config(shots=Shots(draws=1)), 0)
    assert all(result.numbers[f"linear/{name}"] > 0.97 for name in ("10%", "k5", "k20"))
    assert all(one["stage"] == 2 for name in ("10%", "k5", "k20") for one in result.chosen[name])
    chance = lowshot.run(clusters(apart=0), lowshot.Config(shots=Shots(percents=(10,), per_class=())), 0)
    assert chance.numbers["linear/10%"] == pytest.approx(0.25, abs=0.07)
    once = lowshot.run(clusters(apart=8), lowshot.Config(shots=Shots(percents=(0.1,), per_class=())), 0)
    assert once.chosen["0.1%"] == [{"stage": 2, "c": 10.0}] * 3, "one image of each class leaves nothing to choose by"


def test_the_accuracy_is_scikit_learns_on_the_same_images():
    what, config = clusters(apart=2), lowshot.Config(c=(10.0,), shots=Shots(percents=(), per_class=(20,)))
    what = replace(what, stages=what.stages[1:])
    pool = np.concatenate([what.stages[0]["fit"], what.stages[0]["held"]])
    labels = np.concatenate([what.labels["fit"], what.labels["held"]])
    accuracies = []
    for rows in drawn(labels, config.shots, 0)["k20"]:
        fitted = LogisticRegression(C=10, max_iter=1000, tol=1e-6).fit(normalize(pool[rows]), labels[rows])
        accuracies.append(fitted.score(normalize(what.stages[0]["test"]), what.labels["test"]))
    numbers = lowshot.run(what, config, 0).numbers
    assert numbers["linear/k20"] == pytest.approx(np.mean(accuracies), abs=2e-3)
    assert numbers["linear/k20/std"] == pytest.approx(np.std(accuracies, ddof=1), abs=3e-3)


def test_fine_tunes_on_few_images(tmp_path, monkeypatch):
    """Each draw by itself, and continued from what it kept; test labels take no part."""
    config = lowshot_finetune.Config(shots=Shots(percents=(10,), per_class=(5,), draws=2), steps=40, batch=16)
    parts = stripes(240, 0), stripes(60, 1)
    source = Source("made up", "digest", 16, *parts, ("down", "across"), FORMAT.mean, FORMAT.std)

    def model() -> Model:
        encoder = encoders.build("convnet", 16, 0)
        return Model(encoder, source, "dataset", Splits(), 0, torch.device("cpu"), 1, tmp_path)

    result = lowshot_finetune.run(model(), config, 0)
    assert set(result.numbers) == {"finetune/10%", "finetune/10%/std", "finetune/k5", "finetune/k5/std"}
    assert result.numbers["finetune/10%"] > 0.9
    assert {path.name for path in tmp_path.iterdir()} == {"10%-0", "10%-1", "k5-0", "k5-1"}
    monkeypatch.setattr("ssl_core.evaluation.finetuning.train", None)
    assert lowshot_finetune.run(model(), config, 0) == result
