"""Run with TRITON_INTERPRET=1: print one line for each example whose Triton result is not the reference's."""

import random

import torch

from kernels import registry
from support.example_variants import several, vary

VARIATIONS = 5  # of each kernel's examples: a second a kernel


def ordered(values):
    """bfloat16 as int32 such that neighbors differ by one."""
    bits = values.contiguous().view(torch.int16).int()
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)


def agrees(result, expected):
    if result.shape != expected.shape or result.stride() != expected.stride() or result.dtype != expected.dtype:
        return False
    if result.dtype == torch.bfloat16:
        # The interpreter truncates to bfloat16 where a GPU rounds.
        return bool(((ordered(result) - ordered(expected)).abs() <= 1).all())
    return torch.equal(result, expected)


def main():
    assert registry.INTERPRETED
    torch.set_num_threads(1)
    for kernel in registry.kernels():
        varied = (tuple(vary(kernel, random.Random(seed)).values()) for seed in range(VARIATIONS))
        for index, arguments in enumerate([*kernel.examples(torch.Generator().manual_seed(1)), *varied]):
            results, expected = several(kernel.op(*arguments)), several(kernel.reference(*arguments))
            if not all(agrees(*pair) for pair in zip(results, expected, strict=True)):
                print(f"{kernel.name}: example {index}")
        print(f"checked {kernel.name}")


if __name__ == "__main__":
    main()
