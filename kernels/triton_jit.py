"""Compiles the Triton kernels."""

from typing import Any

import triton

# To a checker `triton.jit` returns the plain Python function, although the result is called with other arguments: when
# launched, with tensors for pointers and with options such as num_warps, and in a kernel, with plain constants.
jit: Any = triton.jit
