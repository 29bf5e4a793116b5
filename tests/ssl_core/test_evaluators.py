"""What every evaluator promises, and what the features that they judge promise."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from support.synthetic_images import CLASSES, FORMAT, arrays, gradients

import ssl_core.encoders.build as encoders
from ssl_core.data.dataset import Arrays, Source
from ssl_core.errors import UserError
from ssl_core.evaluation.features import FrozenFeatures, extract, size_of
from ssl_core.evaluation.frozen_encoder import FrozenEncoder, Splits, normalize
from ssl_core.evaluation.protocol import protocols
from ssl_core.evaluation.protocols.knn import KNN
from ssl_core.evaluation.protocols.linear import LinearProbe

CPU = torch.device("cpu")
SIZES = {"train": 400, "val": 150, "test": 1000}
each_protocol = pytest.mark.parametrize("protocol", ["knn", "linear"])


def subject(apart: float, seed: int = 0, classes: int = 4, width: int = 16) -> FrozenFeatures:
    """Gaussian clusters, one a class, `apart` standard deviations from the middle; the first stage is pure noise."""
    random = np.random.default_rng(seed)
    centers = random.standard_normal((classes, width))
    centers *= apart / np.linalg.norm(centers, axis=1, keepdims=True)
    labels = {name: random.integers(0, classes, count) for name, count in SIZES.items()}
    noise = [{n: random.standard_normal((c, width)).astype(np.float32) for n, c in SIZES.items()} for _ in range(2)]
    clusters = {name: (value + centers[labels[name]]).astype(np.float32) for name, value in noise[1].items()}
    return FrozenFeatures([noise[0], clusters], labels, classes)


def judge(protocol: str, what: FrozenFeatures, seed: int = 0):
    module = protocols()[protocol]
    return module.run(what, module.Config(), seed)


def same(one, other) -> bool:
    return (one.numbers, one.chosen) == (other.numbers, other.chosen) and np.array_equal(one.correct, other.correct)


def test_all_protocols_are_found():
    assert {"knn", "linear"} <= set(protocols())
    for module in protocols().values():
        assert (
            isinstance(module.version, int)
            and isinstance(module.higher_is_better, bool)
            and isinstance(module.needs_labels, bool)
        )
        assert module.on in ("features", "encoder") and isinstance(module.headline, str)


@each_protocol
def test_finds_what_can_be_told_apart(protocol):
    result = judge(protocol, subject(apart=6))
    assert result.numbers["top1"] > 0.95
    assert result.numbers["top1/stage1"] < 0.4
    assert result.numbers["top1/stage2"] == result.numbers["top1"]
    assert result.chosen["stage"] == 2 and result.chosen["val_score"] > 0.95


@each_protocol
def test_finds_nothing_in_noise(protocol):
    assert judge(protocol, subject(apart=0)).numbers["top1"] == pytest.approx(0.25, abs=0.07)


@each_protocol
def test_a_seed_names_the_result(protocol):
    assert same(judge(protocol, subject(apart=1.5)), judge(protocol, subject(apart=1.5)))
    assert not same(judge(protocol, subject(apart=1.5)), judge(protocol, subject(apart=1.5, seed=1)))


@each_protocol
def test_correct_says_which_images_the_accuracy_is_of(protocol):
    result = judge(protocol, subject(apart=1.5))
    assert result.correct.shape == (SIZES["test"],) and result.correct.dtype == bool
    assert 0.3 < result.numbers["top1"] == pytest.approx(result.correct.mean())


@each_protocol
def test_test_data_chooses_nothing(protocol):
    what = subject(apart=1.5)
    permuted = np.random.default_rng(1).permutation(what.labels["test"])
    result = judge(protocol, what)
    other = judge(protocol, FrozenFeatures(what.stages, {**what.labels, "test": permuted}, what.classes))
    assert other.chosen == result.chosen
    assert other.numbers["top1"] < result.numbers["top1"] - 0.1


@each_protocol
def test_held_out_data_chooses(protocol):
    what = subject(apart=6)
    first, second = what.stages
    swapped = {"train": second["train"], "val": first["val"], "test": second["test"]}
    result = judge(protocol, FrozenFeatures([first, swapped, second], what.labels, what.classes))
    assert result.chosen["stage"] == 3


def test_knn_is_scikit_learns():
    """Its classifier with our weights, given the neighbors' cosine distances, on the same images."""
    what = subject(apart=1.5)
    stage, config = what.stages[1], KNN.Config(neighbors=(20,))
    model = KNeighborsClassifier(20, weights=lambda d: np.exp((1 - d) / config.temperature), metric="cosine")
    expected = model.fit(stage["train"], what.labels["train"]).predict(stage["test"]) == what.labels["test"]
    found = KNN().run(FrozenFeatures([stage], what.labels, what.classes), config, 0)
    assert (found.correct == expected).mean() > 0.998, "ties apart"


def test_linear_is_torchs_own_sgd():
    """The same batches through nn.Linear, autograd, torch's SGD and its cosine schedule, one learning rate alone."""
    what = subject(apart=1.5)
    stage, config = what.stages[1], LinearProbe.Config(epochs=8)
    found = LinearProbe().run(FrozenFeatures([stage], what.labels, what.classes), config, 3)
    rate = found.chosen["learning_rate"]
    layer = torch.nn.Linear(16, 4)
    torch.nn.init.zeros_(layer.weight), torch.nn.init.zeros_(layer.bias)
    steps = torch.optim.SGD(layer.parameters(), lr=rate, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(steps, config.epochs * 2)
    x, y, order = (
        torch.from_numpy(stage["train"]),
        torch.from_numpy(what.labels["train"]),
        torch.Generator().manual_seed(3),
    )
    for _ in range(config.epochs):
        for rows in torch.randperm(len(x), generator=order).split(config.batch):
            steps.zero_grad()
            torch.nn.functional.cross_entropy(layer(x[rows]), y[rows]).backward()
            steps.step()
            schedule.step()
    right = layer(torch.from_numpy(stage["test"])).argmax(1).numpy() == what.labels["test"]
    assert (found.correct == right).mean() > 0.998


# Features


def source(classes: int = 3, train: int = 300, test: int = 90, size: int = 16) -> Source:
    names = tuple(f"class {i}" for i in range(classes))
    parts = arrays(train, size, classes), arrays(test, size, classes, seed=1)
    return Source("made up", "digest", size, *parts, names, FORMAT.mean, FORMAT.std)


def features(encoder: str = "raw-pixels", given: Source | None = None, **splits) -> FrozenFeatures:
    given = given or source()
    built = encoders.build(encoder, given.size, 0)
    return extract(FrozenEncoder(built, given, "dataset", Splits(**splits), 0, CPU, 0))


@pytest.mark.parametrize("encoder", ["raw-pixels", "convnet", "resnet18"])
@pytest.mark.slow
def test_features_are_standardized_on_what_is_fitted(encoder):
    found = features(encoder)
    for stage in found.stages:
        assert stage["train"].dtype == np.float32
        assert np.abs(stage["train"].mean(0)).max() < 1e-3
        spread = stage["train"].std(0)
        assert (np.isclose(spread, 1, atol=1e-3) | (spread == 0)).all() and (spread > 0).mean() > 0.5
        assert stage["test"].mean(0).any()


@pytest.mark.parametrize(("labels", "train", "val"), [(0, 250, 50), (120, 100, 20), (1000, 250, 50)])
def test_splits_are_disjoint_and_of_their_sizes(labels, train, val):
    found = features(num_labels=labels)
    for values in (found.labels, *found.stages):
        assert {name: len(value) for name, value in values.items()} == {"train": train, "val": val, "test": 90}
    rows = [{row.tobytes() for row in found.stages[0][name]} for name in ("train", "val", "test")]
    assert len(set.union(*rows)) == train + val + 90  # every image is another
    assert found.labels["test"].tolist() == source().test.labels.tolist()
    assert found.classes == 3


def test_labels_stay_with_their_images():
    given = source(classes=CLASSES)
    shades = np.arange(256, dtype=np.uint8)[:, None, None, None].repeat(16, 1).repeat(16, 2).repeat(3, 3)
    named = Source(**{**vars(given), "train": Arrays(shades, np.arange(256) // 26), "test": given.test})
    found = features(given=named)
    brightness = np.concatenate([found.stages[0][name][:, 0] for name in ("train", "val")])
    labels = np.concatenate([found.labels[name] for name in ("train", "val")])
    assert (labels[brightness.argsort()] == np.arange(256) // 26).all()


def test_normalizes_each_image_by_itself():
    images = gradients(6)
    found = normalize(images, "image", FORMAT)
    assert found.shape == (6, 3, 32, 32)
    assert found.mean((2, 3)).abs().max() < 1e-4
    assert torch.allclose(found.std((2, 3), correction=0), torch.ones(6, 3), atol=1e-3)
    by_hand = images.permute(0, 3, 1, 2).float()
    spread = by_hand.std((2, 3), keepdim=True, correction=0)
    assert torch.allclose(found, (by_hand - by_hand.mean((2, 3), keepdim=True)) / spread, atol=1e-3)


def test_normalizes_all_images_alike():
    images = gradients(6)
    expected = (images.float() - torch.tensor(FORMAT.mean)) / torch.tensor(FORMAT.std)
    assert torch.allclose(normalize(images, "dataset", FORMAT), expected.permute(0, 3, 1, 2), atol=1e-6)


def test_batch_norm_is_recalibrated_on_whole_images():
    built = [encoders.build("convnet", 16, 0) for _ in range(2)]
    before = built[0].stages[0][1].running_mean.clone()
    found = [extract(FrozenEncoder(encoder, source(), "dataset", Splits(), 0, CPU, 0)) for encoder in built]
    assert not torch.equal(built[0].stages[0][1].running_mean, before)
    assert encoders.digest(built[0]) == encoders.digest(built[1])
    assert not built[0].training
    for one, other in zip(found[0].stages, found[1].stages):
        assert all(np.array_equal(one[name], other[name]) for name in one)
    pixels = normalize(torch.from_numpy(source().train.images), "dataset", FORMAT)
    mean = built[0].stages[0][0](pixels).mean((0, 2, 3))
    assert torch.allclose(built[0].stages[0][1].running_mean, mean, atol=1e-4)


def test_refuses_to_judge_without_test_images():
    given = source()
    with pytest.raises(UserError, match="0 test images"):
        features(given=replace(given, test=Arrays(given.test.images[:0], given.test.labels[:0])))


def unlabeled(given: Source) -> Source:
    """As a flat folder is: no classes and no test part."""
    train, test = Arrays(given.train.images, np.full(len(given.train), -1)), Arrays(given.test.images[:0], np.empty(0))
    return replace(given, classes=(), train=train, test=test)


def test_without_labels_training_images_are_looked_at():
    """Half of them stand for test images; no image is in two splits."""
    found = features(given=unlabeled(source()), num_labels=200)
    assert {name: len(value) for name, value in found.labels.items()} == {"train": 83, "val": 17, "test": 100}
    assert found.classes == 0 and all((value == -1).all() for value in found.labels.values())
    assert len({row.tobytes() for rows in found.stages[0].values() for row in rows}) == 200


# Intervals


@pytest.mark.parametrize("name", ["raw-pixels", "convnet"])
def test_the_size_of_features_is_known_before_they_are_there(name):
    """What the queue reckons with when it shares out the object store."""
    encoder = encoders.build(name, 16, 0)
    there = extract(FrozenEncoder(encoder, source(), "dataset", Splits(), 0, CPU, 0))
    assert size_of(encoder, name, source(), Splits(), 0) == sum(
        x.nbytes for stage in there.stages for x in stage.values()
    )
