"""Random words on a GPU."""

import torch
import triton
import triton.language as tl
from triton import Config

from kernels import tensors, tuning
from kernels.triton_jit import jit

TUNABLE = tuning.Tunable(
    "draw",
    (
        Config({"BLOCK": 256}, num_warps=4),
        Config({"BLOCK": 128}, num_warps=4),
        Config({"BLOCK": 64}, num_warps=1),
    ),
)


# Unspecialized, so that a seed of 1 stays a tensor and a new seed compiles nothing.
@jit(do_not_specialize=["seed", "stream"])
def draw_kernel(ids, epochs, out, seed, stream, total, blocks, count, BLOCK: tl.constexpr):
    """Writes the words of BLOCK counters of the batch, four each.

    Args:
        ids: Integers [b].
        epochs: Integers [b].
        out: int64 [b, count].
        seed: A word in [0, 2^32), the first of the key.
        stream: A word in [0, 2^32), the second of the key.
        total: Counters of the batch, b * blocks.
        blocks: Counters of an id, count / 4, rounded up.
        count: Words of an id.
        BLOCK: A power of two.
    """
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = index < total
    row = index // blocks
    part = index % blocks
    identity = tl.load(ids + row, mask=inside, other=0).to(tl.int64)
    epoch = tl.load(epochs + row, mask=inside, other=0).to(tl.uint32)
    key = seed.to(tl.uint64) | (stream.to(tl.uint64) << 32)
    w0, w1, w2, w3 = tl.philox(key, part.to(tl.uint32), epoch, identity.to(tl.uint32), (identity >> 32).to(tl.uint32))
    words = tl.join(tl.join(w0, w2), tl.join(w1, w3)).reshape(BLOCK, 4).to(tl.int64)
    place = part[:, None] * 4 + tl.arange(0, 4)[None, :]
    tl.store(out + row[:, None] * count + place, words, mask=inside[:, None] & (place < count))


def launch(ids, epochs, seed, stream, count) -> torch.Tensor:
    """Launches the Triton kernel; arguments and result as those of the reference."""
    out = torch.empty((ids.shape[0], count), dtype=torch.int64, device=ids.device)
    blocks = triton.cdiv(count, 4)
    total = ids.shape[0] * blocks
    config = TUNABLE.choose(count or 1, out.dtype, False, ids.device)
    if total:
        with torch.cuda.device_of(ids):
            draw_kernel[(triton.cdiv(total, config["BLOCK"]),)](
                tensors.as_triton_int(ids),
                tensors.as_triton_int(epochs),
                out,
                seed,
                stream,
                total,
                blocks,
                count,
                **config,
            )
    return out
