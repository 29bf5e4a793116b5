"""The loader that decodes with NVIDIA DALI, on the GPU where there is one, only the part that is wanted."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from threading import local
from typing import NamedTuple, cast

import numpy as np
import simplejpeg
import torch
from nvidia import dali
from nvidia.dali import fn
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import Pipeline, pipeline_def
from nvidia.dali.types import DALIDataType, DALIInterpType
from torch import Tensor

from ssl_core.data.batch import Batch
from ssl_core.data.decoding.crops import CropRequest, crop_boxes
from ssl_core.data.decoding.decode import UNREADABLE, read_fast_path
from ssl_core.data.loaders.base import EncodedLoader, decoding_threads
from ssl_core.data.loaders.cpu import decode_into
from ssl_core.errors import reason_of

DEPTH = 2  # batches that DALI works on at a time
PLACEHOLDER = simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8))  # in place of what DALI is not to decode


class Input(NamedTuple):
    """What DALI gets for one image, and what replaces its output if the image was decoded without it.

    Attributes:
        data: A JPEG.
        height: Of the JPEG, pixels.
        width: Of the JPEG, pixels.
        pixels: [size, size, 3] uint8, the image if it was decoded without DALI.
        reason: Why it cannot be decoded at all.
    """

    data: bytes = PLACEHOLDER
    height: int = 16
    width: int = 16
    pixels: Tensor | None = None
    reason: str | None = None


class DaliLoader(EncodedLoader):
    """Gives DALI files and boxes in the order that is asked for; DALI itself draws nothing.

    What is not a plain JPEG is decoded as the cpu loader does, and so is a batch that DALI fails on, since it does not
    say which image is at fault. The arguments are those of EncodedLoader.
    """

    prompt = False  # DALI works ahead, but is fed and emptied in the calling thread

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.undecodable: set[int] = set()  # ids of images that DALI has failed on
        self.warned = False

    def read(self, requests: Iterable[CropRequest]) -> Iterator[Batch]:
        """Yields a batch on the device for each request."""
        buffers = local()
        running: deque[tuple[CropRequest, list[Input]]] = deque()  # what DALI works on
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
                except RuntimeError as error:  # the pipeline is lost, and what else it worked on
                    inputs = list(workers.map(partial(self._decode_on_cpu, buffers, wanted), range(len(wanted))))
                    images = torch.empty((len(wanted), self.size, self.size, 3), dtype=torch.uint8, device=self.device)
                    self._mark_undecodable(wanted, inputs, error)
                    retrying.extendleft(reversed(running))
                    running.clear()
                    pipeline = begin()
                yield self._to_batch(wanted, inputs, images)

    def _mark_undecodable(self, wanted: CropRequest, inputs: list[Input], error: RuntimeError) -> None:
        """Keeps the images that nothing can decode from DALI; warns once of a failure that has another cause."""
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
            return Input(pixels=black, reason=reason_of(error))
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
    """Builds a DALI pipeline that decodes a part of each image and resizes it with antialiasing.

    Args:
        feed: Returns what a batch needs: files, [n] uint8 each, and starts and shapes (y, x) of the parts, [2] int32
            each; raises StopIteration at the end.
        size: The new side in pixels.
        max_batch: The most images of a batch.
        threads: How many threads DALI has.
        device: A GPU, or the CPU.

    Returns:
        The pipeline, whose output is [b, size, size, 3] uint8.
    """
    gpu = device.type == "cuda"

    @pipeline_def(
        batch_size=max_batch,
        num_threads=threads,
        prefetch_queue_depth=DEPTH,
        device_id=(device.index or 0) if gpu else None,  # pyright: ignore[reportArgumentType]  # None means no GPU
    )
    def define() -> DataNode:
        encoded, start, shape = fn.external_source(
            source=feed, num_outputs=3, dtype=[DALIDataType.UINT8, DALIDataType.INT32, DALIDataType.INT32], ndim=1
        )
        part = fn.decoders.image_slice(
            encoded,
            start=start,
            shape=shape,
            axis_names="HW",
            adjust_orientation=False,
            device="mixed" if gpu else "cpu",
        )
        resized = fn.resize(part, size=[size, size], interp_type=DALIInterpType.INTERP_LINEAR, antialias=True)
        return cast(DataNode, resized)  # of one input there is one output

    pipeline = define()
    pipeline.build()
    return pipeline


def _output(pipeline: Pipeline) -> Tensor:
    """Returns a copy of the next batch. Raises RuntimeError if anything in it could not be decoded."""
    (output,) = pipeline.share_outputs()
    images = torch.from_dlpack(output.as_tensor()).clone()
    if images.is_cuda:  # the pipeline will write there again
        torch.cuda.current_stream(images.device).synchronize()
    pipeline.release_outputs()
    return images


def _last_line(error: RuntimeError) -> str:
    """Returns the last line of DALI's message, which names the cause."""
    return (str(error).strip().splitlines() or ["no reason given"])[-1]


def check_dali(device: torch.device) -> str:
    """Decodes one JPEG to check that DALI works.

    Args:
        device: A GPU, or the CPU.

    Returns:
        DALI's version.

    Raises:
        RuntimeError: If DALI cannot decode there.
    """
    one = [np.frombuffer(PLACEHOLDER, np.uint8)], [np.zeros(2, np.int32)], [np.full(2, 16, np.int32)]
    build_pipeline(lambda: one, 8, 1, 1, device).run()
    return dali.__version__
