"""Short trainings with and without activation checkpointing, in one process or in several that train together."""

from pathlib import Path

import torch
import torch.distributed as dist

from ssl_core.data.batch import Batch
from ssl_core.optim import Optim
from ssl_core.train import TrainConfig, train
from support.synthetic_images import FORMAT, batch_of, pretext

SIZES = {"convnet": 32, "vit-small-images": 32, "test_resnet": 64, "test_efficientnet": 64, "densenet121": 64}
STEPS = 3


def trained(encoder: str, checkpointing: bool, task: str = "rotnet", **options) -> dict[str, torch.Tensor]:
    """-> all weights and buffers after STEPS steps, and the losses as one more tensor."""
    model, size = pretext(task, encoder, SIZES[encoder]), SIZES[encoder]
    return _trained(model, [batch_of(6, size, epoch) for epoch in range(STEPS)], checkpointing, **options)


def _trained(model, given: list, checkpointing: bool, **options) -> dict[str, torch.Tensor]:
    optim = Optim(lr=0.01, warmup=0.0, clip_grad_norm=1.0)
    plan = TrainConfig(steps=STEPS, seed=0, optim=optim, activation_checkpointing=checkpointing, **options)
    losses = [step.metrics["loss"] for step in train(model, given, FORMAT, plan)]
    return {**model.state_dict(), "losses": torch.stack(losses)}


def worker(rank: int, world: int, encoders: tuple[str, ...], folder: str) -> None:
    """One of `world` processes, which train each of `encoders` with and without; leaves folder/RANK.pt."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    outcomes = {}
    for encoder in encoders:
        whole = [batch_of(7, SIZES[encoder], epoch) for epoch in range(STEPS)]
        mine = [Batch(*(field.tensor_split(world)[rank] for field in batch)) for batch in whole]
        for on in (False, True):
            model = pretext("rotnet", encoder, SIZES[encoder])
            outcomes[encoder, on] = _trained(model, mine, on, grad_accumulation=2)
    torch.save(outcomes, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
