"""A short training run that several processes share, and what it leaves behind."""

from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from ssl_core.data.batch import Batch
from ssl_core.data.sampler import ShuffledSampler, batch_positions
from ssl_core.optim import Optim
from ssl_core.train import TrainConfig, train
from support.synthetic_images import FORMAT, arrays, pretext

IMAGES, BATCH, STEPS = 40, 7, 4
OPTIM = Optim(optimizer="sgd", lr=0.5, warmup=0.0)
GENTLE = replace(OPTIM, lr=0.001)  # for a loss of some twenty, which diverges at 0.5


def batches(steps: range, rank: int = 0, world: int = 1):
    """This worker's slices; every fifth image counts for nothing, as if its file were broken."""
    split, order = arrays(IMAGES), ShuffledSampler(IMAGES, 0)
    for step in steps:
        ids, epochs = order.at(batch_positions(step, BATCH, rank, world))
        rows = torch.from_numpy(ids)
        weights = (rows % 5 != 0).float()
        images = torch.from_numpy(split.images[ids]) * (weights > 0).to(torch.uint8)[:, None, None, None]
        yield Batch(images, rows, torch.from_numpy(epochs), weights, torch.from_numpy(split.labels[ids]))


def run(task: str, grad_accumulation: int = 1, rank: int = 0, world: int = 1) -> dict:
    """-> the losses, the norms of gradients, the images met and the weights after STEPS steps."""
    model = pretext(task, "convnet-plain")
    plan = TrainConfig(
        steps=STEPS, seed=0, optim=GENTLE if task == "vicreg" else OPTIM, grad_accumulation=grad_accumulation
    )
    mine = list(batches(range(STEPS), rank, world))
    steps = [step.metrics for step in train(model, mine, FORMAT, plan)]
    losses, norms = ([float(metrics[name]) for metrics in steps] for name in ("loss", "grad_norm"))
    return {"losses": losses, "norms": norms, "ids": [batch.ids for batch in mine], "weights": model.state_dict()}


def worker(rank: int, world: int, tasks: tuple[str, ...], folder: str) -> None:
    """One of `world` processes, which train each of `tasks`, the last one also in parts; leaves folder/RANK.pt."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    outcomes = {task: run(task, rank=rank, world=world) for task in tasks}
    outcomes["in parts"] = run(
        tasks[-1], grad_accumulation=4, rank=rank, world=world
    )  # two workers have two images only
    torch.save(outcomes, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
