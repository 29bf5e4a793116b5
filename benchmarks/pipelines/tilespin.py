"""What `tilespin pretrain` does at each step: the loader's batches, the kernels, and the project's own loop."""

from collections.abc import Iterator

from torch import Tensor

from benchmarks.pipelines import STEPS, Case
from ssl_core.data.dataset import Source, open_source
from ssl_core.data.loaders.select import Name, training_batches
from ssl_core.openmp import sleeping_when_contended
from ssl_core.train import TrainConfig, train

context = sleeping_when_contended


def _train(case: Case, source: Source, loader: Name = "auto") -> Iterator[Tensor]:
    where = dict(rank=0, world=1, device=case.device, threads=case.cores)
    _, batches = training_batches(source, batch=case.batch, steps=range(STEPS), seed=0, loader=loader, **where)
    plan = TrainConfig(steps=STEPS, seed=0, optim=case.optim, precision=case.precision, compile=case.compile)
    for step in train(case.model(), batches, case.format, plan):
        yield step.metrics["loss"]


def pipelines(case: Case) -> dict[str, Iterator[Tensor]]:
    found = {"Tilespin": _train(case, case.source)}
    if case.packed:
        found["Tilespin, packed"] = _train(case, open_source(str(case.packed), case.size), "cpu")
    return found
