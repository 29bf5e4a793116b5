"""`python -m benchmarks.evaluators`: kNN and the linear probe against scikit-learn, on the same features: seconds and
memory.

Features are Gaussian clusters, float32. Each measurement has a process of its own, which makes its features, notes its
memory, works, and notes the most that it had. Both of kNN classify the held-out and the test features by their 200
nearest neighbors, Tilespin's by their 20 nearest as well. Both of linear train six classifiers, Tilespin's on six
learning rates in 40 passes by SGD, scikit-learn's on six strengths of its penalty in 40 iterations of L-BFGS each, at
least a pass over the features every one; and classify the same features.
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import environment as machine
from ssl_core.evaluation.features import FrozenFeatures
from ssl_core.evaluation.protocols.knn import KNN
from ssl_core.evaluation.protocols.linear import LinearProbe

NEIGHBORS, TEMPERATURE = 200, KNN.Config().temperature
RATES, PASSES = LinearProbe.Config().learning_rates, LinearProbe.Config().epochs
CHUNK = 1000  # rows of features made at once, so that making them takes no memory to speak of


@dataclass(frozen=True)
class Size:
    """How many features, and how wide."""

    images: int
    queries: int  # test features; an eighth as many are held out
    width: int
    classes: int
    threads: int


def features(size: Size) -> FrozenFeatures:
    """Clusters around random centers, near enough to one another that no classifier is always right."""
    random = np.random.default_rng(0)
    centers = random.standard_normal((size.classes, size.width), np.float32) * 0.08
    stage, labels = {}, {}
    for name, count in (("train", size.images), ("val", max(1, size.queries // 8)), ("test", size.queries)):
        labels[name] = np.arange(count) % size.classes
        stage[name] = np.empty((count, size.width), np.float32)
        for first in range(0, count, CHUNK):
            rows = stage[name][first : first + CHUNK]
            rows[:] = random.standard_normal(rows.shape, np.float32)
            rows += centers[labels[name][first : first + CHUNK]]
    return FrozenFeatures([stage], labels, size.classes)


def knn_here(subject: FrozenFeatures) -> float:
    return KNN().run(subject, KNN.Config(), 0).numbers[f"top1/k{NEIGHBORS}"]


def knn_there(subject: FrozenFeatures) -> float:
    from sklearn.neighbors import KNeighborsClassifier

    stage, labels = subject.stages[0], subject.labels
    vote = dict(metric="cosine", weights=lambda distances: np.exp((1 - distances) / TEMPERATURE))
    neighbors = min(NEIGHBORS, len(stage["train"]))
    model = KNeighborsClassifier(neighbors, algorithm="brute", **vote).fit(stage["train"], labels["train"])
    model.predict(stage["val"])
    return float((model.predict(stage["test"]) == labels["test"]).mean())


def linear_here(subject: FrozenFeatures) -> float:
    return LinearProbe().run(subject, LinearProbe.Config(), 0).numbers["top1"]


def linear_there(subject: FrozenFeatures) -> float:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    warnings.simplefilter("ignore", ConvergenceWarning)  # it has as many iterations as it is given
    stage, labels, models = subject.stages[0], subject.labels, []
    for c in np.logspace(-5, 0, len(RATES)):
        models.append(LogisticRegression(C=c, max_iter=PASSES, tol=1e-9).fit(stage["train"], labels["train"]))
    best = max(models, key=lambda model: model.score(stage["val"], labels["val"]))
    return float(best.score(stage["test"], labels["test"]))


CALLS: dict[tuple[str, str], Callable[[FrozenFeatures], float]] = {
    ("knn", "tilespin"): knn_here,
    ("knn", "scikit-learn"): knn_there,
    ("linear", "tilespin"): linear_here,
    ("linear", "scikit-learn"): linear_there,
}


def measure(protocol: str, who: str, size: Size) -> dict:
    """One measurement, in this process, which should be fresh. Memory is what the system counts as resident (VmHWM)
    beyond the features and what was there before, scikit-learn's code among it where that is measured."""
    torch.set_num_threads(size.threads)
    subject = features(size)
    before = _resident("VmRSS")
    start, used = time.perf_counter(), time.process_time()
    top1 = CALLS[protocol, who](subject)
    took = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - used}
    grown = max(0, _resident("VmHWM") - before)
    bytes_there = sum(part.nbytes for part in subject.stages[0].values())
    return {
        "protocol": protocol,
        "who": who,
        "top1": top1,
        **took,
        "grown_mib": grown / 2**20,
        "features_mib": bytes_there / 2**20,
        "peak_mib": _resident("VmHWM") / 2**20,
    }


def _resident(field: str) -> int:
    """Bytes, as Linux tells them: VmRSS now, VmHWM the most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def apart(protocol: str, who: str, size: Size) -> dict:
    """`measure` in a process of its own, whose libraries have so many threads."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(size.threads)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, protocol, who, size).result()


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluators", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1, help="of all measurements, one after the other")
    parser.add_argument("--protocols", nargs="+", default=["knn", "linear"])
    parser.add_argument("--into", type=Path, default=machine.RESULTS)
    return parser.parse_args()


def main() -> None:
    asked = options()
    size, lines = Size(asked.images, asked.queries, asked.width, asked.classes, asked.threads), []
    for number in range(asked.rounds):
        for protocol, who in (key for key in CALLS if key[0] in asked.protocols):
            lines.append({"round": number, **apart(protocol, who, size)})
            line = lines[-1]
            print(
                f"{protocol:<8}{who:<14}{line['seconds']:>8.1f} s ({line['cpu_seconds']:.1f} of a processor)"
                f"{line['grown_mib']:>8.0f} MiB  top1 {line['top1']:.4f}",
                flush=True,
            )
    told = {"load": os.getloadavg()[0], "scikit_learn": machine.version("scikit-learn")}
    print(
        machine.keep("evaluators", {"machine": machine.describe(), **asdict(size), **told, "lines": lines}, asked.into)
    )


if __name__ == "__main__":
    main()
