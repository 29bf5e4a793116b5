"""The loop that a person would write: torchvision's transforms in a DataLoader with a process for each core."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms import v2

from benchmarks.pipelines import Case, plain_loop
from ssl_core.task import PretextModel
from ssl_core.tasks.jigsaw import Jigsaw
from ssl_core.tasks.mae import MAE
from ssl_core.tasks.rotnet import RotNet
from ssl_core.tasks.simclr import SimCLR


def read_image(path: Path) -> Tensor:
    return decode_image(read_file(str(path)), mode=ImageReadMode.RGB)


def read_picture(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB")


class Images(torch.utils.data.Dataset):
    """A transform of each image, of files or of an array of pixels as torchvision's CIFAR10 has it."""

    def __init__(self, case: Case, transform: Callable, read: Callable = read_image):
        train = case.source.train
        self.pixels, self.paths = train.pixels, None if train.pixels is not None else train.paths
        self.transform, self.read = transform, read

    def __len__(self) -> int:
        return len(self.paths if self.pixels is None else self.pixels)

    def __getitem__(self, i: int):
        image = self.read(self.paths[i]) if self.pixels is None else Image.fromarray(np.asarray(self.pixels[i]))
        return self.transform(image), i


def batches(case: Case, dataset: Images) -> Iterator:
    """(what the transform made, collated, on the device; row numbers), without an end."""
    options = dict(shuffle=True, drop_last=True, num_workers=case.cores, pin_memory=case.device.type == "cuda")
    options |= dict(persistent_workers=True, multiprocessing_context="fork")
    loader = torch.utils.data.DataLoader(dataset, case.batch, **options)
    while True:
        for made, rows in loader:
            yield _moved(made, case), rows.to(case.device)


def _moved(made, case: Case):
    if isinstance(made, (tuple, list)):
        return type(made)(_moved(one, case) for one in made)
    layout = dict(memory_format=torch.channels_last) if made.ndim == 4 else {}
    return made.to(case.device, non_blocking=True, **layout)


def normalize(case: Case) -> list:
    mean, std = ([v / 255 for v in values] for values in (case.source.mean, case.source.std))
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]


def rotnet(case: Case, model: PretextModel) -> Iterator[tuple]:
    assert isinstance(model.task, RotNet)
    side, array = model.task.size, case.source.train.pixels is not None
    crop = v2.RandomCrop(side) if array else v2.RandomResizedCrop(side, scale=(0.25, 1), ratio=(1, 1), antialias=True)
    transform = v2.Compose([v2.ToImage(), crop, v2.RandomHorizontalFlip(), *normalize(case)])
    targets = torch.arange(4, device=case.device).repeat(case.batch, 1)
    for images, _ in batches(case, Images(case, transform)):
        turned = torch.stack([images.rot90(k, (2, 3)) for k in range(4)], dim=1).flatten(0, 1)
        yield turned.contiguous(memory_format=torch.channels_last), targets


def simclr(case: Case, model: PretextModel) -> Iterator[tuple]:
    assert isinstance(model.task, SimCLR)
    jitter = v2.ColorJitter(0.4, 0.4, 0.4, 0.1)
    view = v2.Compose(
        [
            v2.RandomResizedCrop(model.task.side, scale=(0.2, 1), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([jitter], p=0.8),
            v2.RandomGrayscale(0.2),
            *normalize(case),
        ]
    )
    start = v2.ToImage()

    def transform(image):
        image = start(image)
        return torch.stack([view(image), view(image)])

    weights = torch.ones(case.batch, device=case.device)
    for views, rows in batches(case, Images(case, transform)):
        yield (views.flatten(0, 1).contiguous(memory_format=torch.channels_last), rows, weights), ()


def jigsaw(case: Case, model: PretextModel) -> Iterator[tuple]:
    task = model.task
    assert isinstance(task, Jigsaw)
    steps = (
        []
        if case.source.train.pixels is not None
        else [v2.RandomResizedCrop(case.size, scale=(0.25, 1), ratio=(1, 1), antialias=True)]
    )
    prepare = v2.Compose([v2.ToImage(), *steps, v2.RandomGrayscale(0.3), v2.ToDtype(torch.float32)])
    grid, tile, cell, orders = task.grid, task.tile, task.tile + task.gap, task.config.orders
    permutations = task.permutations.cpu()

    def transform(image):
        image, tiles = prepare(image), []
        jitter = torch.randint(task.gap + 1, (grid**2, 2)).tolist()
        for place, (y, x) in enumerate(jitter):
            top, left = place // grid * cell + y, place % grid * cell + x
            part = image[:, top : top + tile, left : left + tile]
            tiles.append((part - part.mean((1, 2), keepdim=True)) / (part.std((1, 2), keepdim=True) + 1e-6))
        targets = torch.randint(len(permutations), (orders,))
        first = permutations[targets[0]]
        return torch.stack(tiles)[first], first.argsort().repeat(orders, 1), targets

    for (tiles, lies, targets), _ in batches(case, Images(case, transform)):
        yield (tiles.flatten(0, 1).contiguous(memory_format=torch.channels_last), lies, targets), targets


def mae(case: Case, model: PretextModel) -> Iterator[tuple]:
    task = model.task
    assert isinstance(task, MAE)
    crop = v2.RandomResizedCrop(task.side, scale=(0.2, 1), antialias=True)
    transform = v2.Compose([v2.ToImage(), crop, v2.RandomHorizontalFlip(), *normalize(case)])
    for images, _ in batches(case, Images(case, transform)):
        yield with_mask(task, images)


def with_mask(task: MAE, images: Tensor) -> tuple:
    """Inputs and targets of MAE, whose patches are dropped on the device."""
    keep = torch.rand(len(images), task.patches, device=images.device).argsort(1)[:, : task.kept]
    dropped = torch.ones(len(images), task.patches, device=images.device, dtype=torch.long).scatter(1, keep, 0)
    return (images, keep), (task.patchify(images), dropped)


MAKERS = {"rotnet": rotnet, "jigsaw": jigsaw, "simclr": simclr, "mae": mae}


def pipelines(case: Case) -> dict[str, Iterator[Tensor]]:
    model = case.model()
    return {"DataLoader, torchvision": plain_loop(case, model, MAKERS[case.task](case, model))}
