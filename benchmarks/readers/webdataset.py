"""webdataset over tar shards of the same files, decoded by torchvision."""

from collections.abc import Iterator

import torch
import webdataset
from torchvision.io import ImageReadMode, decode_image

from benchmarks.readers import Photos
from benchmarks.readers.torchvision import batches, transforms


def read(photos: Photos) -> Iterator[torch.Tensor]:
    transform = transforms(photos.size)

    def prepare(sample: dict) -> torch.Tensor:
        encoded = torch.frombuffer(bytearray(sample["jpg"]), dtype=torch.uint8)
        return transform(decode_image(encoded, mode=ImageReadMode.RGB))

    dataset = webdataset.WebDataset([str(tar) for tar in photos.tars], shardshuffle=len(photos.tars))
    return batches(dataset.shuffle(1000).map(prepare), photos)


WAYS = {"webdataset, torchvision": read}
