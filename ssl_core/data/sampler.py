"""The one endless stream of images: position p is item p mod n of the shuffle of epoch p div n."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from ssl_core.data.dataset import Packed, Split

ROUNDS = 6
WINDOW = 8  # shards that are shuffled together where shards must be fetched; another number is another order


def _mix(x: np.ndarray, key: np.uint64) -> np.ndarray:
    """The finaliser of splitmix64 (Steele et al. 2014), keyed: each bit of the result hangs on every bit of x."""
    with np.errstate(over="ignore"):
        x = x + key * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def permute(index: np.ndarray, n: int, keys: np.ndarray) -> np.ndarray:
    """Where `index` [k] (each in 0..n-1) goes in the permutation of 0..n-1 that its key [k] names.

    A Feistel network over the next even power of two, walked until it lands inside (Black and Rogaway 2002):
    a full permutation in O(1) memory, so that any position is found without its predecessors.
    """
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    shift, mask = np.uint64(half), np.uint64((1 << half) - 1)
    value, keys = index.astype(np.uint64), keys.astype(np.uint64)
    outside = np.ones(len(value), bool)
    while outside.any():
        x, key = value[outside], keys[outside]
        high, low = x >> shift, x & mask
        for r in range(ROUNDS):
            high, low = low, high ^ (_mix(low, key + np.uint64(r << 56)) & mask)
        value[outside] = (high << shift) | low
        outside = value >= n
    return value.astype(np.int64)


class Sampler(Protocol):
    """The endless order of a source's images, a pure function of the position."""

    @property
    def n(self) -> int: ...

    @property
    def seed(self) -> int: ...

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """positions [k] int64 -> (ids [k], epochs [k]) int64. Each epoch meets each id exactly once."""
        ...


@dataclass(frozen=True)
class ShuffledSampler:
    """The stream over a source of `n` images, shuffled by `seed`; the same for every worker and loader."""

    n: int
    seed: int

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """positions [k] int64 -> (ids [k], epochs [k]) int64. Each epoch meets each id exactly once."""
        epochs, index = np.divmod(positions, self.n)
        return permute(index, self.n, _epoch_keys(epochs, self.seed)), epochs


@dataclass(frozen=True)
class ShardSampler:
    """The stream over images that lie in shards, ids in the shards' order: each epoch shuffles the shards, takes
    `window` of them at a time and shuffles the images of those. Memory grows with the shards alone."""

    counts: tuple[int, ...]  # images in each shard
    seed: int
    window: int = WINDOW

    @property
    def n(self) -> int:
        return sum(self.counts)

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """positions [k] int64 -> (ids [k], epochs [k]) int64. Each epoch meets each id exactly once."""
        epochs, ids = np.divmod(positions, self.n)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            ids[here] = self._ids_at(epoch, ids[here])
        return ids, epochs

    def windows(self, positions: np.ndarray) -> list[tuple[int, int]]:
        """(epoch, number in it) of each window that these positions lie in, in the order of the stream."""
        epochs, index = np.divmod(positions, self.n)
        found = set()
        for epoch in np.unique(epochs).tolist():
            found.update((epoch, number) for number in self._windows_at(epoch, index[epochs == epoch])[0].tolist())
        return sorted(found)

    def shards(self, epoch: int, number: int) -> list[int]:
        """The shards of a window; after an epoch's last comes the next epoch's first."""
        if number * self.window >= len(self.counts):
            epoch, number = epoch + 1, 0
        return _epoch_layout(self, epoch)[0][number * self.window :][: self.window].tolist()

    def _windows_at(self, epoch: int, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """index [k], places in this epoch -> the window [k] of each, and where the windows begin and the last ends."""
        bounds = _epoch_layout(self, epoch)[1]
        edges = np.append(bounds[: -1 : self.window], bounds[-1])
        return np.searchsorted(edges, index, "right") - 1, edges

    def _ids_at(self, epoch: int, index: np.ndarray) -> np.ndarray:
        """index [k], places in this epoch -> ids [k]."""
        shards, bounds, starts = _epoch_layout(self, epoch)
        numbers, edges = self._windows_at(epoch, index)
        moved = np.empty_like(index)
        for number in np.unique(numbers).tolist():
            here, first = numbers == number, edges[number]
            keys = _derive_keys(np.full(here.sum(), epoch), self.seed, number + 1)
            moved[here] = first + permute(index[here] - first, int(edges[number + 1] - first), keys)
        offset = np.searchsorted(bounds, moved, "right") - 1
        return starts[shards[offset]] + moved - bounds[offset]


@lru_cache(maxsize=8)
def _epoch_layout(order: ShardSampler, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The shards [s] as this epoch takes them, the bounds [s + 1] of their images in it, and each shard's first id."""
    count, counts = len(order.counts), np.array(order.counts, np.int64)
    shards = permute(np.arange(count), count, _derive_keys(np.full(count, epoch), order.seed, 0))
    return shards, np.append(0, np.cumsum(counts[shards])), np.append(0, np.cumsum(counts[:-1]))


def make_sampler(split: Split, seed: int) -> Sampler:
    """The order that training meets `split` in: of shards that have to be fetched, a few at a time."""
    if isinstance(split, Packed) and split.windowed:
        return ShardSampler(tuple(split.counts().tolist()), seed)
    return ShuffledSampler(len(split), seed)


def _epoch_keys(epochs: np.ndarray, seed: int) -> np.ndarray:
    return _mix(epochs.astype(np.uint64), np.uint64(seed)) >> np.uint64(8)


def _derive_keys(epochs: np.ndarray, seed: int, purpose: int) -> np.ndarray:
    """Other keys for each purpose within an epoch."""
    return _mix(_epoch_keys(epochs, seed), np.uint64(purpose)) >> np.uint64(8)


def batch_positions(step: int, batch: int, rank: int, world: int) -> np.ndarray:
    """The positions that worker `rank` of `world` takes from global batch `step`; sizes differ by at most one."""
    return np.array_split(np.arange(step * batch, (step + 1) * batch), world)[rank]
