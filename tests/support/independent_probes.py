"""Features and answers of an encoder by other code than the program's: torch's and scikit-learn's own."""

import numpy as np
import torch
from sklearn.metrics import accuracy_score, average_precision_score, balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

Stage = dict[str, np.ndarray]  # by split, train, val and test: [n, d] float32, standardized


def stage_features(encoder: nn.Module, images: dict[str, np.ndarray]) -> list[Stage]:
    """Features of each stage, averaged to 2x2 cells and standardized by those of train.

    Args:
        encoder: Takes pixels as they are, [b, 3, h, w] of 0..255.
        images: By split, [n, side, side, 3] uint8.
    """
    maps = {}
    with torch.no_grad():
        for split, pixels in images.items():
            found = encoder(torch.from_numpy(pixels).permute(0, 3, 1, 2))
            maps[split] = [_quarters(map).numpy() for map in found]
    stages = []
    for i, of_train in enumerate(maps["train"]):
        std = of_train.std(0)
        std[std <= 1e-6] = 1
        stages.append({split: (found[i] - of_train.mean(0)) / std for split, found in maps.items()})
    return stages


def _quarters(map: torch.Tensor) -> torch.Tensor:
    b, width, h, w = map.shape
    return map.reshape(b, width, 2, h // 2, 2, w // 2).mean((3, 5)).flatten(1)


def knn_scores(stage: Stage, labels: np.ndarray, split: str, k: int) -> np.ndarray:
    """scikit-learn's shares of the neighbors' votes for each class, [n, classes], by [n, classes] bool of train."""
    voters = KNeighborsClassifier(
        min(k, len(labels)), metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.07)
    )
    voters.fit(stage["train"], labels.astype(int))
    return np.stack([found[:, -1] for found in voters.predict_proba(stage[split])], 1)


def linear_scores(
    stage: Stage, labels: np.ndarray, split: str, rate: float, several: bool, epochs: int = 40
) -> np.ndarray:
    """Logits of one linear layer that torch's SGD has trained, [n, classes], by [n, classes] bool of train; a softmax
    over classes, unless images may have several labels."""
    layer = nn.Linear(stage["train"].shape[1], labels.shape[1])
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.SGD(layer.parameters(), rate, momentum=0.9)
    x, y = torch.from_numpy(stage["train"]), torch.from_numpy(labels).float()
    assert len(x) <= 256, "one batch an epoch, so that the order has no say"
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        logits = layer(x)
        if several:
            loss = nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="sum") / len(x)
        else:
            loss = nn.functional.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return layer(torch.from_numpy(stage[split])).numpy()


def expected_numbers(scores: np.ndarray, labels: np.ndarray, several: bool) -> dict[str, float]:
    """scikit-learn's measures of scores, [n, classes], by labels, [n, classes] bool."""
    if several:
        return {"map": float(average_precision_score(labels, scores, average="macro"))}
    truth, answers = labels.argmax(1), scores.argmax(1)
    return {
        "top1": float(accuracy_score(truth, answers)),
        "top1/balanced": float(balanced_accuracy_score(truth, answers)),
    }
