"""Fetches shards from a store in the background before training asks for them."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue

import numpy as np

from ssl_core.data.sampler import Sampler, ShardSampler
from ssl_core.data.split import Fetchable, Split
from ssl_core.storage.object_cache import cache_limit

MAX_THREADS = 4  # shards that are fetched at a time


def prefetch_shards(split: Split, order: Sampler, slices: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Passes on slices of positions, and fetches in the background the shards that they need.

    When the slices come to another window, its shards are fetched, and then as many of the next window's as the cache
    has room for. Only images in shards of a store need that.

    Args:
        split: The images.
        order: Their order.
        slices: Positions in it, each [b] int64; each is drawn only when it is asked for.

    Yields:
        The same slices.
    """
    shards = [shard.file for shard in split.fetched_shards()]
    if not shards or not isinstance(order, ShardSampler):
        yield from slices
        return
    spare = cache_limit() // max(shard.size for shard in shards) - order.window
    queue: SimpleQueue[Fetchable | None] = SimpleQueue()
    for _ in range(MAX_THREADS):
        threading.Thread(target=_fetch, args=(queue,), daemon=True, name="fetches shards").start()
    try:
        reached = None
        for positions in slices:
            for epoch, number in order.windows(positions):
                if reached is None or (epoch, number) > reached:
                    reached = epoch, number
                    coming = order.shards(epoch, number + 1)[: max(0, spare)]
                    for shard in (*order.shards(epoch, number), *coming):
                        queue.put(shards[shard])
            yield positions
    finally:
        with suppress(Empty):  # the fetchers may take the last one first
            while True:
                queue.get_nowait()
        for _ in range(MAX_THREADS):
            queue.put(None)


def _fetch(queue: "SimpleQueue[Fetchable | None]") -> None:
    while (shard := queue.get()) is not None:
        with suppress(Exception):  # reading it later meets the same error, and reports it
            shard.fetch()
