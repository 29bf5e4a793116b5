"""Low-shot protocols: which labels they see, and what they make of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize
from support.synthetic_images import FORMAT, stripes

import ssl_core.encoders.build as encoders
from ssl_core.data.dataset import Source
from ssl_core.evaluation.features import FrozenFeatures
from ssl_core.evaluation.few_labels import LabelSubset, mean_accuracies, sample_subsets
from ssl_core.evaluation.frozen_encoder import FrozenEncoder, Splits
from ssl_core.evaluation.protocols.lowshot import LowShot
from ssl_core.evaluation.protocols.lowshot_finetune import LowShotFineTuning


def clusters(apart: float) -> FrozenFeatures:
    """Four Gaussian classes in 16 dimensions; the first stage is noise."""
    random = np.random.default_rng(0)
    centers = random.standard_normal((4, 16))
    centers *= apart / np.linalg.norm(centers, axis=1, keepdims=True)
    labels = {name: np.arange(count) % 4 for name, count in (("train", 320), ("val", 80), ("test", 400))}
    noise = [{n: random.standard_normal((len(ys), 16)).astype(np.float32) for n, ys in labels.items()} for _ in "ab"]
    return FrozenFeatures(
        [noise[0], {n: (x + centers[labels[n]]).astype(np.float32) for n, x in noise[1].items()}], labels, 4
    )


def test_draws_are_of_their_sizes_nested_and_each_its_own():
    labels = np.repeat([0, 1, 2], [1000, 100, 30])
    found = sample_subsets(labels, LabelSubset(draws=4), seed=0)
    assert set(found) == {"1%", "10%", "k5", "k20"} and all(len(draws) == 4 for draws in found.values())
    counts = {name: [np.bincount(labels[rows]).tolist() for rows in draws] for name, draws in found.items()}
    assert counts == {"1%": [[10, 1, 1]] * 4, "10%": [[100, 10, 3]] * 4, "k5": [[5] * 3] * 4, "k20": [[20] * 3] * 4}
    assert all(set(few) < set(many) for few, many in zip(found["1%"], found["10%"]))
    assert len({tuple(rows) for rows in found["k5"]}) == 4
    assert "k20" not in sample_subsets(labels[:1110], LabelSubset(), seed=0)
    again, other = sample_subsets(labels, LabelSubset(), seed=0), sample_subsets(labels, LabelSubset(), seed=1)
    assert np.array_equal(again["k5"][0], found["k5"][0]) and not np.array_equal(other["k5"][0], found["k5"][0])


def test_mean_and_spread_by_hand():
    """Ten images, eight of them of one class; a draw whose training diverged counts as 0."""
    labels = np.array([0] * 8 + [1] * 2)
    draws = [np.where(np.arange(10) < right, labels, 2) for right in (2, 4, 8)]
    wanted = {"x": 14 / 30, "x/std": np.std([0.2, 0.4, 0.8], ddof=1), "x/balanced": (2 + 4 + 8) / 8 / 2 / 3}
    assert mean_accuracies("x", draws, labels) == pytest.approx(wanted)
    assert mean_accuracies("x", [labels], labels) == {"x": 1.0, "x/std": 0, "x/balanced": 1.0}
    assert mean_accuracies("x", [labels, None], labels)["x"] == 0.5


@pytest.mark.slow
def test_finds_what_can_be_told_apart_and_where():
    result = LowShot().run(clusters(apart=8), LowShot.Config(subsets=LabelSubset(draws=1)), 0)
    assert all(result.numbers[f"linear/{name}"] > 0.97 for name in ("10%", "k5", "k20"))
    assert all(one["stage"] == 2 for name in ("10%", "k5", "k20") for one in result.chosen[name])
    chance = LowShot().run(clusters(apart=0), LowShot.Config(subsets=LabelSubset(percents=(10,), per_class=())), 0)
    assert chance.numbers["linear/10%"] == pytest.approx(0.25, abs=0.07)
    once = LowShot().run(clusters(apart=8), LowShot.Config(subsets=LabelSubset(percents=(0.1,), per_class=())), 0)
    assert once.chosen["0.1%"] == [{"stage": 2, "c": 10.0}] * 3, "one image of each class leaves nothing to choose by"


def test_the_accuracy_is_scikit_learns_on_the_same_images():
    what, config = (
        clusters(apart=2),
        LowShot.Config(c=(10.0,), subsets=LabelSubset(percents=(), per_class=(20,))),
    )
    what = replace(what, stages=what.stages[1:])
    pool = np.concatenate([what.stages[0]["train"], what.stages[0]["val"]])
    labels = np.concatenate([what.labels["train"], what.labels["val"]])
    accuracies = []
    for rows in sample_subsets(labels, config.subsets, 0)["k20"]:
        fitted = LogisticRegression(C=10, max_iter=1000, tol=1e-6).fit(normalize(pool[rows]), labels[rows])
        accuracies.append(fitted.score(normalize(what.stages[0]["test"]), what.labels["test"]))
    numbers = LowShot().run(what, config, 0).numbers
    assert numbers["linear/k20"] == pytest.approx(np.mean(accuracies), abs=2e-3)
    assert numbers["linear/k20/std"] == pytest.approx(np.std(accuracies, ddof=1), abs=3e-3)


@pytest.mark.slow
def test_fine_tunes_on_few_images(tmp_path, monkeypatch):
    """Each draw by itself, and continued from what it kept; test labels take no part."""
    config = LowShotFineTuning.Config(subsets=LabelSubset(percents=(10,), per_class=(5,), draws=2), steps=40, batch=16)
    parts = stripes(240, 0), stripes(60, 1)
    source = Source("made up", "digest", 16, *parts, ("down", "across"), FORMAT.mean, FORMAT.std)

    def model() -> FrozenEncoder:
        encoder = encoders.build("convnet", 16, 0)
        return FrozenEncoder(encoder, source, "dataset", Splits(), 0, torch.device("cpu"), 1, tmp_path)

    result = LowShotFineTuning().run(model(), config, 0)
    assert set(result.numbers) == {
        f"finetune/{size}{more}" for size in ("10%", "k5") for more in ("", "/std", "/balanced")
    }
    assert result.numbers["finetune/10%"] > 0.9
    assert {path.name for path in tmp_path.iterdir()} == {"10%-0", "10%-1", "k5-0", "k5-1"}
    monkeypatch.setattr("ssl_core.evaluation.finetuning.train", None)
    assert LowShotFineTuning().run(model(), config, 0) == result
