"""`python -m benchmarks.harness.examples`: every kernel's examples once on the GPU, for a checker such as
compute-sanitizer."""

import torch

from kernels.registry import kernels


def main() -> None:
    for kernel in kernels():
        for example in kernel.examples(torch.Generator().manual_seed(0)):
            kernel.op(*(value.cuda() if isinstance(value, torch.Tensor) else value for value in example))
    torch.cuda.synchronize()


if __name__ == "__main__":
    main()
