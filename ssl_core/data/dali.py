"""Encoded images through NVIDIA DALI: decoded on the GPU where there is one, only the part that is wanted."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from threading import local
from typing import NamedTuple

import numpy as np
import simplejpeg
import torch
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.pipeline import Pipeline
from torch import Tensor

from kernels.dispatch import alone
from ssl_core.data.crops import Wanted
from ssl_core.data.decode import UNREADABLE, read_plain, square
from ssl_core.data.encoded import EncodedLoader
from ssl_core.data.torch_loader import decoded
from ssl_core.task import Batch

DEPTH = 2  # batches that DALI has in hand
STAND_IN = simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8))  # for what DALI is not to decode


class Input(NamedTuple):
    """What DALI gets for one image, and what replaces its output where something else had to decode it."""

    data: bytes
    box: tuple[int, int, int, int]  # y, x, height, width in pixels
    pixels: Tensor | None = None  # [size, size, 3] uint8
    reason: str | None = None  # why nothing could decode it


Entry = tuple[list[Wanted], list[Input]]  # a batch


class DaliLoader(EncodedLoader):
    """Feeds DALI bytes and boxes in the order that is asked for; DALI itself draws nothing. What is not a plain JPEG
    is decoded as the torch loader does, and so is a batch that DALI fails on, since it does not say why."""

    def read(self, requests: Iterable[list[Wanted]]) -> Iterator[Batch]:
        buffers, running, again = local(), deque[Entry](), deque[Entry]()
        with ThreadPoolExecutor(self.threads, "reads", initializer=alone) as pool:
            entries = ((wanted, list(pool.map(partial(self._input, buffers), wanted))) for wanted in requests)

            def feed() -> tuple[list, list, list]:
                entry = again.popleft() if again else next(entries)
                running.append(entry)
                boxes = np.array([one.box for one in entry[1]], np.int32)
                data = [np.frombuffer(one.data, np.uint8) for one in entry[1]]
                return data, list(boxes[:, :2]), list(boxes[:, 2:])

            if (first := next(entries, None)) is None:
                return
            again.append(first)
            pipeline = build(feed, self.size, len(first[0]), self.threads, self.device)
            while True:
                with suppress(StopIteration):
                    pipeline.schedule_run()
                if not running:
                    return
                wanted, inputs = running.popleft()
                try:
                    (output,) = pipeline.share_outputs()
                    images = torch.from_dlpack(output.as_tensor()).clone()
                    if images.is_cuda:  # the pipeline will write there again
                        torch.cuda.current_stream(self.device).synchronize()
                    pipeline.release_outputs()
                except RuntimeError:  # the pipeline is done for, and what else it had in hand
                    inputs = [self._elsewhere(buffers, one) for one in wanted]
                    images = torch.empty((len(wanted), self.size, self.size, 3), dtype=torch.uint8, device=self.device)
                    again.extendleft(reversed(running))
                    running.clear()
                    pipeline = build(feed, self.size, len(first[0]), self.threads, self.device)
                rows = [row for row, one in enumerate(inputs) if one.pixels is not None]
                if rows:
                    images[rows] = torch.stack([inputs[row].pixels for row in rows]).to(images.device)
                yield self.batch(wanted, images, [one.reason for one in inputs])

    def _input(self, buffers: local, one: Wanted) -> Input:
        try:
            plain = read_plain(partial(self.split.open, one.id))
            if plain and plain.start is None:
                return Input(plain.data, square(plain.height, plain.width, one.box))
        except UNREADABLE as error:
            black = torch.zeros((self.size, self.size, 3), dtype=torch.uint8)
            return Input(STAND_IN, (0, 0, 16, 16), black, str(error) or type(error).__name__)
        return self._elsewhere(buffers, one)

    def _elsewhere(self, buffers: local, one: Wanted) -> Input:
        pixels = torch.empty((1, self.size, self.size, 3), dtype=torch.uint8)
        (reason,) = decoded(self, buffers, [one], pixels)
        return Input(STAND_IN, (0, 0, 16, 16), pixels[0], reason)


def build(feed: Callable, size: int, most: int, threads: int, device: torch.device) -> Pipeline:
    """Decodes batches of up to `most` images, for which feed() returns (bytes, starts, shapes), to uint8
    [b, size, size, 3]. A worker has one GPU, so it has one device here, too."""
    gpu = device.type == "cuda"

    @pipeline_def(batch_size=most, num_threads=threads, prefetch_queue_depth=DEPTH,
                  device_id=(device.index or 0) if gpu else None)  # fmt: skip
    def define():
        encoded, start, shape = fn.external_source(
            source=feed, num_outputs=3, dtype=[types.UINT8, types.INT32, types.INT32], ndim=1
        )
        part = fn.decoders.image_slice(encoded, start=start, shape=shape, axis_names="HW",
                                       adjust_orientation=False, device="mixed" if gpu else "cpu")  # fmt: skip
        return fn.resize(part, size=[size, size], interp_type=types.INTERP_LINEAR, antialias=True)

    pipeline = define()
    pipeline.build()
    return pipeline


def check(device: torch.device) -> None:
    """Decodes one JPEG on the device. Raises RuntimeError if DALI cannot."""
    one = [np.frombuffer(STAND_IN, np.uint8)], [np.zeros(2, np.int32)], [np.full(2, 16, np.int32)]
    build(lambda: one, 8, 1, 1, device).run()
