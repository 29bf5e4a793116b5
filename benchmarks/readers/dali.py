"""A pipeline of DALI's own reader, which decodes only the crop; on the GPU where there is one."""

from collections.abc import Iterator

import torch
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.pytorch import DALIGenericIterator

from benchmarks.readers import MEAN, RATIO, SCALE, STD, Photos


def _options(photos: Photos) -> dict:
    gpu = photos.device.type == "cuda"
    return dict(batch_size=photos.batch, num_threads=photos.cores, device_id=0 if gpu else None, seed=0)


def read(photos: Photos) -> Iterator[torch.Tensor]:
    device = "mixed" if photos.device.type == "cuda" else "cpu"

    @pipeline_def(**_options(photos))
    def define():
        encoded, _ = fn.readers.file(files=[str(path) for path in photos.paths], random_shuffle=True, name="files")
        crops = fn.decoders.image_random_crop(
            encoded, random_area=SCALE, random_aspect_ratio=RATIO, device=device, adjust_orientation=False
        )
        sized = fn.resize(crops, size=[photos.size] * 2, interp_type=types.INTERP_LINEAR, antialias=True)
        return fn.crop_mirror_normalize(sized, mirror=fn.random.coin_flip(), mean=MEAN, std=STD, dtype=types.FLOAT)

    iterator = DALIGenericIterator([define()], ["images"], reader_name="files")
    return (read[0]["images"] for read in iterator)


def decode_only(photos: Photos) -> Iterator[int]:
    @pipeline_def(**_options(photos))
    def define():
        encoded, _ = fn.readers.file(files=[str(path) for path in photos.paths], name="files")
        return fn.decoders.image(encoded, device="mixed" if photos.device.type == "cuda" else "cpu")

    pipeline = define()
    for _ in range(len(photos.paths) // photos.batch):
        yield len(pipeline.run()[0])


WAYS = {"DALI": read}
DECODE = {"DALI": decode_only}
