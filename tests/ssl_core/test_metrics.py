"""Measures of answers, against scikit-learn's, and that each protocol with answers has them."""

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    recall_score,
    top_k_accuracy_score,
)

from ssl_core.evaluation.features import FrozenFeatures
from ssl_core.evaluation.metrics import Answers, class_accuracies, confusion_counts
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
    answers = Answers.of(scores, torch.from_numpy(labels))
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
    whole = Answers.of(scores, torch.from_numpy(labels))
    parts = [Answers.of(scores[a:b], torch.from_numpy(labels[a:b])) for a, b in ((0, 100), (100, 101), (101, 500))]
    assert Answers.joined(parts).numbers(labels) == whole.numbers(labels)
    both = Answers.of(torch.stack([-scores, scores]), torch.from_numpy(labels))
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
