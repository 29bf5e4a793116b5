"""`python -m benchmarks.kmeans`: the floor kmeans by its paper's own experiment, on CIFAR-10 with all labels.

Coates, Lee and Ng 2011, "An analysis of single-layer networks in unsupervised feature learning" (AISTATS), table 1:
k-means with the triangle activation, patches of 6 px, stride 1 and 1,600 centroids reaches 77.9 %. Their classifier is
a linear support vector machine with squared hinge loss on standardized features of four quadrants, one against all,
whose strength C is chosen on held-out training images and which then learns from all of them.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.harness import environment as machine
from ssl_core.data.dataset import Source, open_source
from ssl_core.data.loaders.select import evaluation_batches
from ssl_core.encoders.kmeans import learn_dictionary
from ssl_core.encoders.patch_dictionary import PatchDictionary
from ssl_core.evaluation.frozen_encoder import normalize
from ssl_core.task import InputFormat

PUBLISHED = {1600: 0.779, 4000: 0.796}  # top-1 by the number of centroids
STRENGTHS = (10.0, 100.0, 1000.0)  # of the mean squared hinge loss, against half the squared weights
HELD_OUT = 10_000  # training images that choose among these
CPU = torch.device("cpu")


def features(dictionary: PatchDictionary, source: Source, part: str) -> tuple[Tensor, Tensor]:
    """Encodes all images of a part: [n, 4 * centroids] float32, and labels, [n] int64."""
    images = getattr(source, part)
    found, labels = torch.empty(len(images), 4 * len(dictionary.centroids)), torch.from_numpy(images.labels.copy())
    first = 0
    for batch in evaluation_batches(source, part, np.arange(len(images)), CPU, 1):
        pixels = normalize(batch.images, "dataset", InputFormat(source.mean, source.std, channels_last=False))
        with torch.no_grad():
            found[first : first + len(pixels)] = dictionary(pixels)[0].flatten(1)
        first += len(pixels)
    return found, labels


def batches(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(x.split(10_000), y.split(10_000))


def train_svm(x: Tensor, labels: Tensor, classes: int, strength: float) -> Tensor:
    """Minimizes half the squared weights plus `strength` times the mean squared hinge loss of all classes, by L-BFGS.

    Args:
        x: [n, d] standardized features; the last is 1.
        labels: [n] int64.
        classes: How many there are.
        strength: Of the loss.

    Returns:
        Weights, [d, classes].
    """
    weights = torch.zeros(x.shape[1], classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        total = weights[:-1].square().sum() / 2
        total.backward()
        value = float(total.detach())
        for rows, own in batches(x, labels):
            signs = 2 * F.one_hot(own, classes).float() - 1
            loss = strength * (1 - signs * (rows @ weights)).clamp(min=0).square().sum() / len(x)
            loss.backward()
            value += float(loss.detach())
        return value

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]  # a float is as good as a tensor
    return weights.detach()


def accuracy(x: Tensor, labels: Tensor, weights: Tensor) -> float:
    return sum(int(((rows @ weights).argmax(1) == own).sum()) for rows, own in batches(x, labels)) / len(x)


def standardized(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Standardizes features in place, and adds one that is 1."""
    return torch.cat([x.sub_(mean).div_(std), torch.ones(len(x), 1)], dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kmeans", description=__doc__.split("\n")[0])
    parser.add_argument("--centroids", type=int, default=1600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--into", type=Path, default=machine.RESULTS, metavar="FOLDER")
    chosen = parser.parse_args(sys.argv[1:])
    torch.set_num_threads(chosen.threads)
    source = open_source("cifar10")
    started = time.monotonic()
    learned = learn_dictionary(source, chosen.centroids, chosen.seed, CPU, 1)
    seconds = {"learning": time.monotonic() - started}
    print(f"learned {chosen.centroids} centroids in {seconds['learning']:.0f} s", flush=True)
    (x, labels), (test, test_labels) = (features(learned.dictionary, source, part) for part in ("train", "test"))
    seconds["features"] = time.monotonic() - started - seconds["learning"]
    print(f"encoded {len(x) + len(test):,} images in {seconds['features']:.0f} s", flush=True)
    statistics = x.mean(0), x.std(0)
    x, test = standardized(x, *statistics), standardized(test, *statistics)
    classes, kept = len(source.classes), len(x) - HELD_OUT
    held_out = {}
    for strength in STRENGTHS:
        weights = train_svm(x[:kept], labels[:kept], classes, strength)
        held_out[strength] = accuracy(x[kept:], labels[kept:], weights)
        print(f"C {strength:g}: {held_out[strength]:.1%} of {HELD_OUT:,} held-out training images", flush=True)
    best = max(held_out, key=lambda one: held_out[one])
    found = accuracy(test, test_labels, train_svm(x, labels, classes, best))
    published = PUBLISHED.get(chosen.centroids)
    print(f"test: {found:.1%}" + (f", published {published:.1%}" if published else ""))
    result = {
        "machine": machine.describe(),
        "centroids": chosen.centroids,
        "seed": chosen.seed,
        "seconds": seconds,
        "held_out": held_out,
        "strength": best,
        "top1": found,
        "published": published,
    }
    print(machine.keep(f"kmeans-{chosen.centroids}", result, chosen.into))


if __name__ == "__main__":
    main()
