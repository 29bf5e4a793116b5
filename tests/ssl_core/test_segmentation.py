"""Linear segmentation of frozen maps: known answers, and numbers against scikit-learn's confusion matrix."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix
from support.frozen_encoders import frozen
from support.masked_folders import VOID, put_ade
from torch import nn
from torch.nn import functional as F

import ssl_core.encoders.build as encoders
from ssl_core.data.dataset import Source, open_source
from ssl_core.data.mask_reading import read_masks
from ssl_core.errors import UserError
from ssl_core.evaluation.bootstrap import bootstrap_map, bootstrap_miou
from ssl_core.evaluation.map_pixels import draw_pixels, enlarged_answers, features_at, sampled_features
from ssl_core.evaluation.overlaps import count_overlaps, joined
from ssl_core.evaluation.protocols.segmentation import Segmentation

CONFIG = Segmentation.Config(epochs=10, pixels=4000)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Source:
    """40 images of rectangles whose colors are their classes, some rows of no class."""
    return open_source(str(put_ade(tmp_path_factory.mktemp("rectangles"), 40, 12, void=3)), 32)


class Cells(nn.Module):
    """A map of random features of small cells, and one of a single cell."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("kernel", torch.randn(8, 3, 2, 2, generator=generator))

    def forward(self, x):
        cells = F.conv2d(x, self.kernel, stride=2).relu()
        return [cells, cells.mean((2, 3), keepdim=True)]


@pytest.mark.parametrize("encoder", ["raw-pixels", "cells"])
def test_colors_that_are_classes_are_segmented(source, encoder):
    network = Cells() if encoder == "cells" else encoders.build(encoder, 32, 0)
    result = Segmentation().run(frozen(network, source), CONFIG, 0)
    assert result.numbers["miou"] > (0.85 if encoder == "cells" else 0.95)
    assert result.numbers["pixel_accuracy"] > 0.93 and result.chosen["stage"] == 1
    assert {name for name in result.numbers if name.startswith("iou/")} == {f"iou/{i}" for i in range(4)}
    stages = {name: value for name, value in result.numbers.items() if "stage" in name}
    assert stages == {"miou/stage1": result.numbers["miou"]}  # one vector of an image is no map
    assert result.correct is None and result.predicted is None and not result.notes
    again = Segmentation().run(frozen(network, source), CONFIG, 0)
    assert again.numbers == result.numbers


def test_masks_of_other_images_are_segmented_by_chance(source):
    assert source.masks
    shuffled = source.masks.train.subset(np.random.default_rng(0).permutation(len(source.train)))
    test = source.masks.test.subset(np.random.default_rng(1).permutation(len(source.test)))
    other = replace(source, masks=replace(source.masks, train=shuffled, test=test))
    result = Segmentation().run(frozen(encoders.build("raw-pixels", 32, 0), other), CONFIG, 0)
    assert result.numbers["miou"] < 0.4


def test_an_image_that_cannot_be_decoded_leaves_the_others_to_their_masks(tmp_path):
    """With the masks of their neighbors, half of the test images would be segmented by chance."""
    put_ade(tmp_path, 20, 12)
    (tmp_path / "images/validation/005.png").write_bytes(b"no image")
    (tmp_path / "images/training/002.png").write_bytes(b"no image")
    model = frozen(encoders.build("raw-pixels", 32, 0), open_source(str(tmp_path), 32))
    assert Segmentation().run(model, CONFIG, 0).numbers["miou"] > 0.95
    assert len(model.labels["test"]) == 11 and len(model.labels["train"]) + len(model.labels["val"]) == 19


def test_numbers_are_those_of_scikit_learn(source, monkeypatch):
    """The answers to all test pixels are noted where they are made, and counted by scikit-learn."""
    seen: list[tuple[int, torch.Tensor]] = []

    def noted(map, *rest):
        seen.append((map.shape[1], enlarged_answers(map, *rest)))
        return seen[-1][1]

    monkeypatch.setattr("ssl_core.evaluation.protocols.segmentation.enlarged_answers", noted)
    model = frozen(encoders.build("convnet", 32, 0), source)
    result = Segmentation().run(model, replace(CONFIG, learning_rates=(0.03,)), 0)
    assert source.masks
    width = (32, 64, 128)[result.chosen["stage"] - 1]
    answers = torch.cat([found for of, found in seen if of == width]).numpy().ravel()
    truth = read_masks(source.masks, "test", np.arange(12), 32).ravel()
    known = truth != VOID
    assert 0 < (~known).mean() < 0.2
    matrix = confusion_matrix(truth[known], answers[known], labels=range(4))
    ious = np.diag(matrix) / (matrix.sum(0) + matrix.sum(1) - np.diag(matrix))
    assert result.numbers["miou"] == pytest.approx(ious.mean(), abs=1e-9)
    assert result.numbers["pixel_accuracy"] == pytest.approx(np.trace(matrix) / matrix.sum(), abs=1e-9)
    assert [result.numbers[f"iou/{i}"] for i in range(4)] == pytest.approx(ious.tolist())


def test_classes_that_no_test_image_shows_do_not_count():
    truth = torch.tensor([[0, 0, 1, VOID], [1, 1, 1, VOID]], dtype=torch.uint8)
    found = count_overlaps(torch.tensor([[0, 2, 1, 2], [1, 1, 0, 0]]), truth, 3)
    assert found.present.tolist() == [0, 1]
    assert found.ious().tolist() == pytest.approx([1 / 3, 3 / 4]) and found.miou() == pytest.approx(13 / 24)
    assert found.pixel_accuracy() == pytest.approx(4 / 6)
    halves = [count_overlaps(torch.tensor([[0, 2, 1, 2]]), truth[:1], 3)]
    halves.append(count_overlaps(torch.tensor([[1, 1, 0, 0]]), truth[1:], 3))
    assert all((getattr(joined(halves), name) == getattr(found, name)).all() for name in ("truth", "unions"))


def test_draws_are_those_of_images_drawn_again(monkeypatch):
    rng = np.random.default_rng(1)
    predicted, truth = (torch.from_numpy(rng.integers(0, 3, (30, 50))) for _ in range(2))
    truth[:25][truth[:25] == 2] = 0  # of the last class in few images, so that some draws have none
    found = count_overlaps(predicted, truth.to(torch.uint8), 3)
    counted = found.intersections, found.unions, found.truth
    drawn = bootstrap_miou(*counted, draws=100)
    draws = np.random.default_rng(0).multinomial(30, np.full(30, 1 / 30), size=100)
    wanted = []
    for counts in draws:
        rows = np.repeat(np.arange(30), counts)
        matrix = confusion_matrix(truth[rows].ravel(), predicted[rows].ravel(), labels=range(3))
        present = matrix.sum(1) > 0
        unions = matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
        wanted.append((np.diag(matrix)[present] / unions[present]).mean())
    assert drawn == pytest.approx(np.array(wanted), abs=1e-6) and drawn.dtype == np.float32
    scores, labels = rng.random((30, 2)), rng.random((30, 2)) < 0.5
    whole = bootstrap_map(scores, labels)
    monkeypatch.setattr("ssl_core.evaluation.bootstrap.CELLS", 30 * 7)  # a few draws at a time
    assert (bootstrap_miou(*counted, draws=100) == drawn).all()
    assert (bootstrap_map(scores, labels) == whole).all()


@pytest.mark.parametrize("cells", [(1, 1), (3, 3), (5, 7), (12, 12)])
def test_features_of_pixels_are_those_of_the_enlarged_map(cells):
    map = torch.randn(2, 6, *cells, generator=torch.Generator().manual_seed(0))
    places = torch.randint(0, 144, (2, 40), generator=torch.Generator().manual_seed(1))
    large = F.interpolate(map, size=(12, 12), mode="bilinear", align_corners=False).flatten(2)
    wanted = large.gather(2, places[:, None].expand(-1, 6, -1)).transpose(1, 2)
    torch.testing.assert_close(features_at(map, places, 12), wanted)
    weight, bias = torch.randn(6, 4), torch.randn(4)
    answers = enlarged_answers(map, weight, bias, 12)
    torch.testing.assert_close(answers.flatten(1).gather(1, places), (wanted @ weight + bias).argmax(2))


def test_pixels_are_drawn_once_each_and_of_a_class():
    masks = torch.full((3, 6, 6), VOID, dtype=torch.uint8)
    masks[0, :2], masks[1, 4, 5] = 1, 0
    drawn = draw_pixels(masks, 10, torch.Generator().manual_seed(0))
    assert drawn.shape == (3, 10) and (drawn[2] == -1).all()
    assert sorted(drawn[1].tolist()) == [-1] * 9 + [4 * 6 + 5]
    assert len(set(drawn[0].tolist())) == 10 and drawn[0].min() >= 0 and drawn[0].max() < 12


def test_all_encoders_learn_from_the_same_pixels(source, monkeypatch):
    pixels, y = sampled_features(frozen(encoders.build("raw-pixels", 32, 0), source), "train", 9, 3)
    monkeypatch.setattr("ssl_core.evaluation.map_pixels.NUMBERS", 32 * 16 * 16 * 3)  # three images at a time
    maps, again = sampled_features(frozen(encoders.build("convnet", 32, 0), source), "train", 9, 3)
    assert y.tolist() == again.tolist() and len(y) == 9 * 33 == len(pixels[0])  # one image in six is held out
    assert {stage: of.shape for stage, of in maps.items()} == {0: (297, 32), 1: (297, 64), 2: (297, 128)}
    other = sampled_features(frozen(encoders.build("raw-pixels", 32, 0), source), "train", 9, 4)[0]
    assert not torch.equal(other[0], pixels[0])


def test_masks_of_no_class_are_refused(tmp_path):
    """Test images have all the pixels of a class."""
    put_ade(tmp_path, 6, 4)
    for path in tmp_path.glob("annotations/training/*.png"):
        Image.fromarray(np.full((40, 56), VOID, np.uint8)).save(path)
    source = open_source(str(tmp_path), 32)
    with pytest.raises(UserError, match="all pixels of the training images that a probe learns from are of no class"):
        Segmentation().run(frozen(Cells(), source), CONFIG, 0)
