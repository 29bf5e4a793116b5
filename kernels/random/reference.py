"""Random words in plain torch: the specification."""

import torch

_LOW = 0xFFFFFFFF


def philox(counter: tuple[torch.Tensor, ...], key: tuple[int, int]) -> tuple[torch.Tensor, ...]:
    """Computes Philox4x32-10.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", doi:10.1145/2063384.2063405.

    Args:
        counter: Four int64 tensors of one shape, of words in [0, 2^32).
        key: Two words in [0, 2^32).

    Returns:
        Four int64 tensors of that shape, of words in [0, 2^32).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # A 64-bit product wraps to negative, which the masks undo: its bits are right.
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) & _LOW ^ c1 ^ k0, p1 & _LOW, (p0 >> 32) & _LOW ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    return c0, c1, c2, c3


def compute(ids, epochs, seed, stream, count) -> torch.Tensor:
    """Computes what `draw` returns, of the same arguments."""
    blocks = torch.arange((count + 3) // 4).expand(ids.shape[0], -1)
    identity, epoch = ids.long()[:, None], epochs.long()[:, None]
    parts = (blocks, epoch & _LOW, identity & _LOW, (identity >> 32) & _LOW)
    words = torch.stack(philox(tuple(part.expand(blocks.shape) for part in parts), (seed, stream)), 2)
    return words.flatten(1)[:, :count].clone(memory_format=torch.contiguous_format)
