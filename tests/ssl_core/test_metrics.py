"""Measures of answers, against scikit-learn's, and that each protocol with answers has them."""

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    recall_score,
    top_k_accuracy_score,
)

from ssl_core.evaluation.features import FrozenFeatures
from ssl_core.evaluation.metrics import (
    Scores,
    average_precisions,
    class_accuracies,
    confusion_counts,
    joined,
    label_loss,
    predictions,
)
from ssl_core.evaluation.protocols.knn import KNN
from ssl_core.evaluation.protocols.linear import LinearProbe


def random_scores(classes: int, n: int = 500) -> tuple[torch.Tensor, np.ndarray]:
    """Scores that are right more often than by chance, of images whose classes are not equally frequent."""
    rng = np.random.default_rng(classes)
    labels = np.minimum(rng.geometric(0.3, n) - 1, classes - 2)  # the last class has no image
    scores = rng.standard_normal((n, classes))
    scores[np.arange(n), labels] += 1
    return torch.from_numpy(scores), labels


@pytest.mark.parametrize("classes", [3, 9, 10, 40])
def test_measures_are_scikit_learns(classes):
    scores, labels = random_scores(classes)
    answers = predictions(scores, torch.from_numpy(labels))
    found = answers.numbers(labels)
    assert found["top1"] == accuracy_score(labels, answers.predicted)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert found["top1/balanced"] == pytest.approx(balanced_accuracy_score(labels, answers.predicted), abs=1e-12)
    present = np.unique(labels)
    recalls = recall_score(labels, answers.predicted, average=None, labels=present)
    assert class_accuracies(answers.predicted, labels) == pytest.approx(recalls)
    matrix = np.zeros((classes, classes), int)
    for label, answer, count in confusion_counts(answers.predicted, labels):
        assert count > 0
        matrix[label, answer] = count
    assert (matrix == confusion_matrix(labels, answers.predicted, labels=np.arange(classes))).all()
    if classes < 10:
        assert "top5" not in found
    else:
        five = top_k_accuracy_score(labels, scores.numpy(), k=5, labels=np.arange(classes))
        assert found["top5"] == pytest.approx(five)


def test_parts_and_several_classifiers_give_the_same():
    scores, labels = random_scores(12)
    whole = predictions(scores, torch.from_numpy(labels))
    parts = [predictions(scores[a:b], torch.from_numpy(labels[a:b])) for a, b in ((0, 100), (100, 101), (101, 500))]
    assert joined(parts).numbers(labels) == whole.numbers(labels)
    both = predictions(torch.stack([-scores, scores]), torch.from_numpy(labels))
    assert both[1].numbers(labels) == whole.numbers(labels) != both[0].numbers(labels)


@pytest.mark.parametrize("protocol", [LinearProbe, KNN])
def test_protocols_say_which_answers_they_count(protocol):
    """Of 12 classes, of which some are rare: answers, and the numbers that follow from them."""
    rng = np.random.default_rng(0)
    labels = {
        split: np.minimum(rng.geometric(0.2, n) - 1, 11) for split, n in (("train", 300), ("val", 60), ("test", 200))
    }
    centers = 2 * rng.standard_normal((12, 8))
    stage = {
        split: (centers[of] + rng.standard_normal((len(of), 8))).astype(np.float32) for split, of in labels.items()
    }
    result = protocol().run(FrozenFeatures([stage], labels, 12), protocol.Config(), 0)
    assert result.predicted is not None
    assert (result.correct == (result.predicted == labels["test"])).all()
    assert result.numbers["top1"] == accuracy_score(labels["test"], result.predicted)
    balanced = balanced_accuracy_score(labels["test"], result.predicted)
    assert result.numbers["top1/balanced"] == pytest.approx(balanced) != result.numbers["top1"]
    assert result.numbers["top1"] < result.numbers["top5"] <= 1


def several_labels(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties, and labels of four classes, of which the last has no image."""
    rng = np.random.default_rng(0)
    labels = rng.random((n, 5)) < (0.5, 0.1, 0.02, 0.9, 0.0)
    return np.round(labels + rng.standard_normal(labels.shape), 1).astype(np.float32), labels


def test_mean_average_precision_is_scikit_learns():
    scores, labels = several_labels()
    wanted = [average_precision_score(labels[:, i], scores[:, i]) for i in range(4)]
    assert average_precisions(scores, labels) == pytest.approx(wanted, abs=1e-12)
    found = predictions(torch.from_numpy(scores), torch.from_numpy(labels))
    assert isinstance(found, Scores) and found.correct(labels) is None and found.predicted is None
    assert found.numbers(labels) == {"map": pytest.approx(np.mean(wanted))}
    parts = [predictions(torch.from_numpy(scores[i : i + 90]), torch.from_numpy(labels[:1])) for i in range(0, 300, 90)]
    assert joined(parts).value(labels) == found.value(labels)
    assert found.value(np.zeros_like(labels)) == 0


def test_the_loss_of_several_labels_is_a_sum_of_binary_ones():
    scores, labels = map(torch.from_numpy, several_labels(7))
    right = torch.where(labels, scores, -scores)
    assert label_loss(scores, labels).tolist() == pytest.approx((1 + (-right).exp()).log().sum(1).tolist(), rel=1e-5)


@pytest.mark.parametrize("protocol", [LinearProbe, KNN])
def test_protocols_rank_images_with_several_labels(protocol):
    """Features that show three labels, and one that is not in them."""
    rng = np.random.default_rng(0)
    labels = {split: rng.random((n, 4)) < 0.4 for split, n in (("train", 400), ("val", 80), ("test", 200))}
    stages = [
        {
            split: np.concatenate([of[:, :3] * shown, np.zeros((len(of), 3))], 1).astype(np.float32)
            + 0.3 * rng.standard_normal((len(of), 6), dtype=np.float32)
            for split, of in labels.items()
        }
        for shown in (0, 1)
    ]
    result = protocol().run(FrozenFeatures(stages, labels, 0), protocol.Config(), 0)
    assert result.correct is None and result.predicted is None
    assert result.chosen["stage"] == 2 and result.numbers["map/stage2"] == result.numbers["map"]
    assert result.numbers["map/stage1"] < 0.55 < 0.75 < result.numbers["map"]
    assert not any(name.startswith("top1") for name in result.numbers)
