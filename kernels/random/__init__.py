"""Random words that depend on (seed, stream, epoch, id) alone, by Philox4x32-10, and draws made of them."""

import zlib
from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl

from kernels import checks, registry, tensors
from kernels.cpu_jit import jit_loop
from kernels.examples import integers

_LOW = 0xFFFFFFFF


# Unspecialized, so that a seed of 1 stays a tensor and a new seed compiles nothing.
@triton.jit(do_not_specialize=["seed", "stream"])
def draw_kernel(ids, epochs, out, seed, stream, total, blocks, count, BLOCK: tl.constexpr):
    """BLOCK counters of the batch, four words each."""
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


def _triton(ids, epochs, seed, stream, count):
    out = torch.empty((ids.shape[0], count), dtype=torch.int64, device=ids.device)
    blocks = triton.cdiv(count, 4)
    total = ids.shape[0] * blocks
    if total:
        with torch.cuda.device_of(ids):
            draw_kernel[(triton.cdiv(total, 256),)](
                tensors.as_triton_int(ids),
                tensors.as_triton_int(epochs),
                out,
                seed,
                stream,
                total,
                blocks,
                count,
                BLOCK=256,
                num_warps=4,
            )
    return out


@jit_loop
def _cpu_rows(ids, epochs, seed, stream, out):
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


def _cpu(ids, epochs, seed, stream, count):
    out = torch.empty((ids.shape[0], count), dtype=torch.int64, device=ids.device)
    _cpu_rows(tensors.as_int64_array(ids), tensors.as_int64_array(epochs), seed, stream, out.numpy())
    return out


def philox(counter: tuple[torch.Tensor, ...], key: tuple[int, int]) -> tuple[torch.Tensor, ...]:
    """Philox4x32-10: four int64 tensors of words in [0, 2^32) and two such ints to four such tensors.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", doi:10.1145/2063384.2063405.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # A 64-bit product wraps to negative, which the masks undo: its bits are right.
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) & _LOW ^ c1 ^ k0, p1 & _LOW, (p0 >> 32) & _LOW ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    return c0, c1, c2, c3


def _reference(ids, epochs, seed, stream, count):
    blocks = torch.arange((count + 3) // 4).expand(ids.shape[0], -1)
    identity, epoch = ids.long()[:, None], epochs.long()[:, None]
    parts = (blocks, epoch & _LOW, identity & _LOW, (identity >> 32) & _LOW)
    words = torch.stack(philox(tuple(part.expand(blocks.shape) for part in parts), (seed, stream)), 2)
    return words.flatten(1)[:, :count].clone(memory_format=torch.contiguous_format)


@torch.library.custom_op("tilespin::draw", mutates_args=())
def draw_op(ids: torch.Tensor, epochs: torch.Tensor, seed: int, stream: int, count: int) -> torch.Tensor:
    """The operator behind `draw`; its arguments are not checked."""
    return registry.choose_implementation(_triton, _cpu, ids)(ids, epochs, seed, stream, count)


@draw_op.register_fake
def _(ids, epochs, seed, stream, count):
    return torch.empty((ids.shape[0], count), dtype=torch.int64, device=ids.device)


def draw(ids, epochs, *, seed, stream, count):
    """Draw count random words for each id.

    ids, epochs: integers [b]; seed, stream: ints in [0, 2^32). Returns int64 [b, count] in [0, 2^32):
    word w is lane w % 4 of Philox4x32-10 with key (seed, stream) and counter (w // 4, epoch, low and high
    32 bits of the id), so it does not depend on the batch an id is in. Raises ValueError for an argument
    of another type, shape, device or range.
    """
    for name, value, limit in (("seed", seed, 2**32), ("stream", stream, 2**32), ("count", count, 2**31)):
        if not isinstance(value, int) or not 0 <= value < limit:
            raise ValueError(f"{name}: got {value!r}; expected an int in 0..{limit - 1}")
    checks.check_tensor("ids", ids)
    if ids.dim() != 1:
        raise ValueError(f"ids: got {list(ids.shape)}; expected [b]")
    checks.check_integers("ids", ids, ids.shape, ids.device)
    checks.check_integers("epochs", epochs, ids.shape, ids.device)
    return draw_op(ids, epochs, seed, stream, count)


def uniform(words: torch.Tensor) -> torch.Tensor:
    """float32 in [0, 1) from the top 24 bits of int64 words in [0, 2^32), same shape."""
    return (words >> 8).to(torch.float32) * 2.0**-24


def randint(words: torch.Tensor, bound: int | torch.Tensor) -> torch.Tensor:
    """int64 in [0, bound) from int64 words in [0, 2^32), as (words * bound) >> 32.

    bound: an int in 1..2^31 - 1, else ValueError, or a tensor of such, unchecked, that broadcasts.
    """
    if not isinstance(bound, torch.Tensor) and not 0 < bound < 2**31:
        raise ValueError(f"bound: got {bound}; expected 1..{2**31 - 1}")
    return (words * bound) >> 32


@dataclass(frozen=True)
class RandomBits:
    """The draws of one batch: ids and epochs, integers [b], and the run's seed, an int in [0, 2^32)."""

    ids: torch.Tensor
    epochs: torch.Tensor
    seed: int

    def draw(self, stream: str, count: int) -> torch.Tensor:
        """int64 [b, count] words in [0, 2^32) of the named stream (see `draw`); streams are independent."""
        return draw(self.ids, self.epochs, seed=self.seed, stream=zlib.crc32(stream.encode()), count=count)


def _examples(generator):
    for b, count, seed, stream in ((0, 3, 0, 0), (1, 1, 0, 0), (5, 4, 2**32 - 1, 7), (7, 10, 1, 2**32 - 1)):
        ids = integers(generator, (b,), -(2**62), 2**62)
        yield ids, integers(generator, (b,), 0, 100, torch.int32), seed, stream, count
        yield ids[:0].repeat(2), ids[:0], seed, stream, 0


_TYPES = {"ids": "*i64", "epochs": "*i64", "out": "*i64", "seed": "i64", "stream": "i64"}
KERNELS = (
    registry.Kernel(
        "draw",
        draw_op,
        _reference,
        _triton,
        _cpu,
        _examples,
        (
            registry.Build(
                draw_kernel,
                {**_TYPES, "total": "i32", "blocks": "i32", "count": "i32"},
                {"BLOCK": 256},
                warps=4,
                elements=4 * 256,
                budget=125,
                vectorized=False,
            ),
        ),
    ),
)
