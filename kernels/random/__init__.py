"""Random words that depend on (seed, stream, epoch, id) alone, by Philox4x32-10, and draws made of them."""

import zlib
from dataclasses import dataclass

import torch

from kernels import checks, registry
from kernels.random import cases, cpu_loop, reference, triton_kernel
from kernels.random.reference import philox as philox


@torch.library.custom_op("tilespin::draw", mutates_args=())
def draw_op(ids: torch.Tensor, epochs: torch.Tensor, seed: int, stream: int, count: int) -> torch.Tensor:
    """Runs `draw` on the device of the ids, with arguments that are checked already."""
    return registry.choose_implementation(triton_kernel.launch, cpu_loop.run, ids)(ids, epochs, seed, stream, count)


@draw_op.register_fake
def _(ids, epochs, seed, stream, count):
    return torch.empty((ids.shape[0], count), dtype=torch.int64, device=ids.device)


def draw(ids: torch.Tensor, epochs: torch.Tensor, *, seed: int, stream: int, count: int) -> torch.Tensor:
    """Draws random words for each id, which do not depend on the batch that the id is in.

    Args:
        ids: [b] integers.
        epochs: [b] integers.
        seed: In [0, 2^32).
        stream: In [0, 2^32).
        count: How many words for each id, less than 2^31.

    Returns:
        int64 [b, count] in [0, 2^32): word w is lane w % 4 of Philox4x32-10 with key (seed, stream) and counter
        (w // 4, epoch, low 32 bits of the id, high 32 bits of the id).

    Raises:
        ValueError: If an argument has another type, shape, device or range.
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
    """Returns float32 in [0, 1), of the words' shape, from the top 24 bits of int64 words in [0, 2^32)."""
    return (words >> 8).to(torch.float32) * 2.0**-24


def randint(words: torch.Tensor, bound: int | torch.Tensor) -> torch.Tensor:
    """Returns integers below a bound, made of random words as (words * bound) >> 32.

    Args:
        words: int64 in [0, 2^32), of any shape.
        bound: In 1..2^31 - 1; or a tensor of such integers, unchecked, that broadcasts.

    Returns:
        int64 in [0, bound).

    Raises:
        ValueError: If the bound is a number out of range.
    """
    if not isinstance(bound, torch.Tensor) and not 0 < bound < 2**31:
        raise ValueError(f"bound: got {bound}; expected 1..{2**31 - 1}")
    return (words * bound) >> 32


@dataclass(frozen=True)
class RandomBits:
    """The random words of one batch.

    Attributes:
        ids: [b] integers, of the images.
        epochs: [b] integers.
        seed: Of the run, in [0, 2^32).
    """

    ids: torch.Tensor
    epochs: torch.Tensor
    seed: int

    def draw(self, stream: str, count: int) -> torch.Tensor:
        """Draws words for every image; streams are independent.

        Args:
            stream: Any name.
            count: How many words for each image.

        Returns:
            int64 [b, count] in [0, 2^32), those of the function `draw`.
        """
        return draw(self.ids, self.epochs, seed=self.seed, stream=zlib.crc32(stream.encode()), count=count)


KERNELS = (
    registry.Kernel(
        "draw",
        draw_op,
        reference.compute,
        triton_kernel.launch,
        cpu_loop.run,
        cases.examples,
        (triton_kernel.TUNABLE,),
        cases.builds,
    ),
)
