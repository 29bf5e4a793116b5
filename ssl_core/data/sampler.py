"""The endless order of images: position p is item p mod n of the shuffle of epoch p div n."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from ssl_core.data.split import Split

ROUNDS = 6  # of the Feistel network
WINDOW = 8  # shards that are shuffled together where shards must be fetched; another number is another order


def _mix(x: np.ndarray, key: np.uint64 | np.ndarray) -> np.ndarray:
    """Mixes uint64: each bit of the result depends on every bit of x.

    Source: the finalizer of splitmix64 (Steele et al. 2014), keyed.
    """
    with np.errstate(over="ignore"):
        x = x + key * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def permute(index: np.ndarray, n: int, keys: np.ndarray) -> np.ndarray:
    """Permutes 0..n-1 in O(1) memory, so that any position is found without its predecessors.

    A Feistel network permutes the next even power of two, and is repeated until the result is below n.
    Source: cycle walking (Black and Rogaway 2002).

    Args:
        index: [k] integers, each in 0..n-1.
        n: How many items are permuted.
        keys: [k] uint64; each names a permutation.

    Returns:
        [k] int64: where each index goes in the permutation of its key.
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
    """The endless order of a split's images, a pure function of the position."""

    @property
    def n(self) -> int:
        """Returns how many images there are."""
        ...

    @property
    def seed(self) -> int:
        """Returns the seed of the shuffles."""
        ...

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Finds the images at some positions; each epoch has each image exactly once.

        Args:
            positions: [k] int64.

        Returns:
            Ids and epochs, [k] int64 each.
        """
        ...


@dataclass(frozen=True)
class ShuffledSampler:
    """The order in which each epoch shuffles all images; the same for every worker and loader.

    Attributes:
        n: How many images there are.
        seed: Of the shuffles.
    """

    n: int
    seed: int

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns ids and epochs, [k] int64 each, at positions, [k] int64."""
        epochs, index = np.divmod(positions, self.n)
        return permute(index, self.n, _epoch_keys(epochs, self.seed)), epochs


@dataclass(frozen=True)
class ShardSampler:
    """The order of images in shards that have to be fetched, so that few shards are needed at a time.

    Each epoch shuffles the shards, takes a window of them at a time and shuffles its images. Ids count the images in
    the shards' order. Memory grows with the number of shards alone.

    Attributes:
        counts: Images in each shard.
        seed: Of the shuffles.
        window: How many shards are shuffled together.
    """

    counts: tuple[int, ...]
    seed: int
    window: int = WINDOW

    @property
    def n(self) -> int:
        """Returns how many images there are."""
        return sum(self.counts)

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns ids and epochs, [k] int64 each, at positions, [k] int64."""
        epochs, ids = np.divmod(positions, self.n)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            ids[here] = self._ids_at(epoch, ids[here])
        return ids, epochs

    def windows(self, positions: np.ndarray) -> list[tuple[int, int]]:
        """Returns epoch and number in it of each window that positions, [k] int64, are in, in ascending order."""
        epochs, index = np.divmod(positions, self.n)
        found = set()
        for epoch in np.unique(epochs).tolist():
            found.update((epoch, number) for number in self._windows_at(epoch, index[epochs == epoch])[0].tolist())
        return sorted(found)

    def shards(self, epoch: int, number: int) -> list[int]:
        """Returns the shards of a window; the number after an epoch's last means the next epoch's first."""
        if number * self.window >= len(self.counts):
            epoch, number = epoch + 1, 0
        return _epoch_layout(self, epoch)[0][number * self.window :][: self.window].tolist()

    def _windows_at(self, epoch: int, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the window, [k], of each place in the epoch, `index` [k], and the bounds of all windows."""
        bounds = _epoch_layout(self, epoch)[1]
        edges = np.append(bounds[: -1 : self.window], bounds[-1])
        return np.searchsorted(edges, index, "right") - 1, edges

    def _ids_at(self, epoch: int, index: np.ndarray) -> np.ndarray:
        """Returns the ids, [k], at places in the epoch, `index` [k]."""
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
    """Returns the shards, [s], in an epoch's order, the bounds, [s + 1], of their images in it, and their first ids."""
    count, counts = len(order.counts), np.array(order.counts, np.int64)
    shards = permute(np.arange(count), count, _derive_keys(np.full(count, epoch), order.seed, 0))
    return shards, np.append(0, np.cumsum(counts[shards])), np.append(0, np.cumsum(counts[:-1]))


def make_sampler(split: Split, seed: int) -> Sampler:
    """Makes the order in which training reads a split: a few shards at a time if these have to be fetched.

    Args:
        split: The images.
        seed: Of the shuffles.
    """
    if shards := split.fetched_shards():
        return ShardSampler(tuple(shard.images for shard in shards), seed)
    return ShuffledSampler(len(split), seed)


def _epoch_keys(epochs: np.ndarray, seed: int) -> np.ndarray:
    return _mix(epochs.astype(np.uint64), np.uint64(seed)) >> np.uint64(8)


def _derive_keys(epochs: np.ndarray, seed: int, purpose: int) -> np.ndarray:
    """Returns keys that differ for each purpose within an epoch."""
    return _mix(_epoch_keys(epochs, seed), np.uint64(purpose)) >> np.uint64(8)


def batch_positions(step: int, batch: int, rank: int, world: int) -> np.ndarray:
    """Returns the positions of a worker's part of a global batch; the parts differ in size by at most one.

    Args:
        step: The number of the global batch.
        batch: Images of a global batch.
        rank: Of the worker.
        world: How many workers share the batch.

    Returns:
        [k] int64.
    """
    return np.array_split(np.arange(step * batch, (step + 1) * batch), world)[rank]
