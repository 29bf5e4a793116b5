"""torch's DataLoader with one of torchvision's ways to decode, and its transforms."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms import v2

from benchmarks.readers import MEAN, RATIO, SCALE, STD, Photos


def with_torchvision(path: Path) -> torch.Tensor:
    return decode_image(read_file(str(path)), mode=ImageReadMode.RGB)


def with_pillow(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB")


def transforms(size: int) -> v2.Compose:
    """Of a uint8 tensor or a picture of Pillow's."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=SCALE, ratio=RATIO, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([m / 255 for m in MEAN], [s / 255 for s in STD]),
        ]
    )


class Files(torch.utils.data.Dataset):
    """What `prepare` makes of each file."""

    def __init__(self, paths: tuple[Path, ...], prepare: Callable):
        self.paths, self.prepare = paths, prepare

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int):
        return self.prepare(self.paths[i])


def batches(dataset, photos: Photos, **options) -> Iterator[torch.Tensor]:
    """Through a DataLoader with a process for each core."""
    options |= dict(num_workers=photos.cores, multiprocessing_context="fork", pin_memory=photos.device.type == "cuda")
    loader = torch.utils.data.DataLoader(dataset, photos.batch, **options)
    return (batch.to(photos.device, non_blocking=True) for batch in loader)


def read(decode: Callable, photos: Photos) -> Iterator[torch.Tensor]:
    prepare, transform = decode, transforms(photos.size)
    return batches(Files(photos.paths, lambda path: transform(prepare(path))), photos, shuffle=True, drop_last=True)


def decode_only(decode: Callable, photos: Photos) -> Iterator[int]:
    """The pixels stay in the decoding process."""

    def one(path: Path) -> int:
        np.asarray(decode(path))
        return 1

    return (len(done) for done in batches(Files(photos.paths, one), photos))


WAYS = {
    "DataLoader, torchvision": partial(read, with_torchvision),
    "DataLoader, Pillow": partial(read, with_pillow),
}
DECODE = {
    "DataLoader, torchvision": partial(decode_only, with_torchvision),
    "DataLoader, Pillow": partial(decode_only, with_pillow),
}
