"""Random words on a CPU: a compiled loop over the ids."""

import numpy as np
import torch

from kernels import tensors
from kernels.cpu_jit import jit_loop


@jit_loop
def draw_rows(ids, epochs, seed, stream, out):
    """Fills out with the words of every id.

    Args:
        ids: int64 [b].
        epochs: int64 [b].
        seed: A word in [0, 2^32), the first of the key.
        stream: A word in [0, 2^32), the second of the key.
        out: int64 [b, count].
    """
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for row in range(ids.shape[0]):
        identity = np.uint64(ids[row])
        for block in range((out.shape[1] + 3) // 4):
            c0, c1 = np.uint64(block) & low, np.uint64(epochs[row]) & low
            c2, c3 = identity & low, identity >> half
            k0, k1 = np.uint64(seed), np.uint64(stream)
            for _ in range(10):
                p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
                c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ k0, p1 & low, (p0 >> half) ^ c3 ^ k1, p0 & low
                k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
            lanes = (c0, c1, c2, c3)
            for word in range(4 * block, min(4 * block + 4, out.shape[1])):
                out[row, word] = lanes[word % 4]


def run(ids, epochs, seed, stream, count) -> torch.Tensor:
    """Runs the compiled loop; arguments and result as those of the reference."""
    out = torch.empty((ids.shape[0], count), dtype=torch.int64, device=ids.device)
    draw_rows(tensors.as_int64_array(ids), tensors.as_int64_array(epochs), seed, stream, out.numpy())
    return out
