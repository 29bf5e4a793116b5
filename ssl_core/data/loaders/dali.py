"""Encoded images through NVIDIA DALI: decoded on the GPU where there is one, only the part that is wanted."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from threading import local
from typing import NamedTuple

import numpy as np
import simplejpeg
import torch
from nvidia import dali
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.pipeline import Pipeline
from torch import Tensor

from ssl_core.data.batch import Batch
from ssl_core.data.decoding.crops import CropRequest, crop_boxes
from ssl_core.data.decoding.decode import UNREADABLE, read_fast_path
from ssl_core.data.loaders.base import EncodedLoader, decoding_threads
from ssl_core.data.loaders.cpu import decode_into

DEPTH = 2  # batches that DALI has in hand
PLACEHOLDER = simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8))  # for what DALI is not to decode


class Input(NamedTuple):
    """What DALI gets for one image, and what replaces its output where something else had to decode it."""

    data: bytes = PLACEHOLDER
    height: int = 16
    width: int = 16
    pixels: Tensor | None = None  # [size, size, 3] uint8
    reason: str | None = None  # why nothing could decode it


class DaliLoader(EncodedLoader):
    """Feeds DALI bytes and boxes in the order that is asked for; DALI itself draws nothing. What is not a plain JPEG
    is decoded as the cpu loader does, and so is a batch that DALI fails on, since it does not say why."""

    prompt = False  # DALI works ahead, but is fed and emptied in the calling thread

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.undecodable: set[int] = set()  # ids of images that DALI has failed on
        self.warned = False

    def read(self, requests: Iterable[CropRequest]) -> Iterator[Batch]:
        buffers = local()
        running: deque[tuple[CropRequest, list[Input]]] = deque()  # what DALI has in hand
        retrying: deque[tuple[CropRequest, list[Input]]] = deque()  # what it is to be given first
        with decoding_threads(self.threads) as workers:

            def inputs_of(wanted: CropRequest) -> list[Input]:
                return list(workers.map(partial(self._input, buffers, wanted), range(len(wanted))))

            def feed() -> tuple[list, list, list]:
                wanted, inputs = retrying.popleft() if retrying else next(entries)
                running.append((wanted, inputs))
                heights, widths = (np.array([getattr(one, side) for one in inputs]) for side in ("height", "width"))
                boxes = crop_boxes(heights, widths, wanted.boxes).astype(np.int32)
                return [np.frombuffer(one.data, np.uint8) for one in inputs], list(boxes[:, :2]), list(boxes[:, 2:])

            entries = ((wanted, inputs_of(wanted)) for wanted in requests)
            if (first := next(entries, None)) is None:
                return
            retrying.append(first)
            begin = partial(build_pipeline, feed, self.size, len(first[0]), self.threads, self.device)
            pipeline = begin()
            while True:
                pipeline.schedule_run()  # feeds another batch, as long as there is one
                if not running:
                    return
                wanted, inputs = running.popleft()
                try:
                    images = _output(pipeline)
                except RuntimeError as error:  # the pipeline is done for, and what else it had in hand
                    inputs = list(workers.map(partial(self._decode_on_cpu, buffers, wanted), range(len(wanted))))
                    images = torch.empty((len(wanted), self.size, self.size, 3), dtype=torch.uint8, device=self.device)
                    self._mark_undecodable(wanted, inputs, error)
                    retrying.extendleft(reversed(running))
                    running.clear()
                    pipeline = begin()
                yield self._to_batch(wanted, inputs, images)

    def _mark_undecodable(self, wanted: CropRequest, inputs: list[Input], error: RuntimeError) -> None:
        """DALI is not given images again that nothing can decode; if there are none, its own failure is said once."""
        bad = {int(id) for id, one in zip(wanted.ids, inputs) if one.reason is not None}
        if not bad and not self.warned:
            self.warned = True
            self.skipped.warn(f"DALI failed on a batch, which is decoded without it: {_last_line(error)}")
        self.undecodable |= bad

    def _input(self, buffers: local, wanted: CropRequest, row: int) -> Input:
        if int(wanted.ids[row]) in self.undecodable:
            return self._decode_on_cpu(buffers, wanted, row)
        try:
            plain = read_fast_path(partial(self.split.open, int(wanted.ids[row])))
            if plain and plain.start is None:
                return Input(plain.data, plain.height, plain.width)
        except UNREADABLE as error:
            black = torch.zeros((self.size, self.size, 3), dtype=torch.uint8)
            return Input(pixels=black, reason=str(error) or type(error).__name__)
        return self._decode_on_cpu(buffers, wanted, row)

    def _decode_on_cpu(self, buffers: local, wanted: CropRequest, row: int) -> Input:
        pixels = torch.empty((1, self.size, self.size, 3), dtype=torch.uint8)
        (reason,) = decode_into(self, buffers, wanted.part(row, row + 1), pixels)
        return Input(pixels=pixels[0], reason=reason)

    def _to_batch(self, wanted: CropRequest, inputs: list[Input], images: Tensor) -> Batch:
        replaced = {row: one.pixels for row, one in enumerate(inputs) if one.pixels is not None}
        if replaced:
            images[list(replaced)] = torch.stack(list(replaced.values())).to(images.device)
        return self.batch(wanted, images, {row: one.reason for row, one in enumerate(inputs) if one.reason is not None})


def build_pipeline(feed: Callable, size: int, max_batch: int, threads: int, device: torch.device) -> Pipeline:
    """Decodes batches of up to `max_batch` images, for which feed() returns (bytes, starts, shapes), to uint8
    [b, size, size, 3]. A worker has one GPU, so it has one device here, too."""
    gpu = device.type == "cuda"

    @pipeline_def(
        batch_size=max_batch,
        num_threads=threads,
        prefetch_queue_depth=DEPTH,
        device_id=(device.index or 0) if gpu else None,
    )
    def define():
        encoded, start, shape = fn.external_source(
            source=feed, num_outputs=3, dtype=[types.UINT8, types.INT32, types.INT32], ndim=1
        )
        part = fn.decoders.image_slice(
            encoded,
            start=start,
            shape=shape,
            axis_names="HW",
            adjust_orientation=False,
            device="mixed" if gpu else "cpu",
        )
        return fn.resize(part, size=[size, size], interp_type=types.INTERP_LINEAR, antialias=True)

    pipeline = define()
    pipeline.build()
    return pipeline


def _output(pipeline: Pipeline) -> Tensor:
    """A copy of the next batch. Raises RuntimeError if anything in it could not be decoded."""
    (output,) = pipeline.share_outputs()
    images = torch.from_dlpack(output.as_tensor()).clone()
    if images.is_cuda:  # the pipeline will write there again
        torch.cuda.current_stream(images.device).synchronize()
    pipeline.release_outputs()
    return images


def _last_line(error: RuntimeError) -> str:
    """The last line that DALI says, which names the cause."""
    return (str(error).strip().splitlines() or ["no reason given"])[-1]


def check_dali(device: torch.device) -> str:
    """Decodes one JPEG on the device -> DALI's version. Raises RuntimeError if DALI cannot."""
    one = [np.frombuffer(PLACEHOLDER, np.uint8)], [np.zeros(2, np.int32)], [np.full(2, 16, np.int32)]
    build_pipeline(lambda: one, 8, 1, 1, device).run()
    return dali.__version__
