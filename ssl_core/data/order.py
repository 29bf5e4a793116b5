"""The one endless stream of images: position p is item p mod n of the shuffle of epoch p div n."""

from dataclasses import dataclass

import numpy as np

ROUNDS = 6


def _mix(x: np.ndarray, key: np.uint64) -> np.ndarray:
    """The finaliser of splitmix64 (Steele et al. 2014), keyed: each bit of the result hangs on every bit of x."""
    with np.errstate(over="ignore"):
        x = x + key * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def shuffled(index: np.ndarray, n: int, keys: np.ndarray) -> np.ndarray:
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
        left, right = x >> shift, x & mask
        for r in range(ROUNDS):
            left, right = right, left ^ (_mix(right, key + np.uint64(r << 56)) & mask)
        value[outside] = (left << shift) | right
        outside = value >= n
    return value.astype(np.int64)


@dataclass(frozen=True)
class Order:
    """The stream over a source of `n` images, shuffled by `seed`; the same for every worker and loader."""

    n: int
    seed: int

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """positions [k] int64 -> (ids [k], epochs [k]) int64. Each epoch meets each id exactly once."""
        epochs, index = np.divmod(positions, self.n)
        keys = _mix(epochs.astype(np.uint64), np.uint64(self.seed)) >> np.uint64(8)
        return shuffled(index, self.n, keys), epochs


def slice_of(step: int, batch: int, rank: int, world: int) -> np.ndarray:
    """The positions that worker `rank` of `world` takes from global batch `step`; sizes differ by at most one."""
    return np.array_split(np.arange(step * batch, (step + 1) * batch), world)[rank]
