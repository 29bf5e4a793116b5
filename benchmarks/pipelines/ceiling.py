"""The same model on one batch that never changes: what is left when data and augmentation take no time."""

from collections.abc import Iterator
from itertools import repeat

from torch import Tensor

from benchmarks.pipelines import Case, plain_loop
from kernels.random import RandomBits
from ssl_core.data.loaders.select import training_batches


def pipelines(case: Case) -> dict[str, Iterator[Tensor]]:
    return {"one batch": _train(case)}


def _train(case: Case) -> Iterator[Tensor]:
    where = dict(rank=0, world=1, device=case.device, threads=case.cores)
    _, batches = training_batches(case.source, batch=case.batch, steps=range(1), seed=0, **where)
    [batch] = batches
    model = case.model()
    made = model.task.make_batch(batch, RandomBits(batch.ids, batch.epochs, 0), case.format)
    return plain_loop(case, model, repeat(made))
