"""Kernels that turn uint8 NHWC images into a network's normalized input, one launch per call.

A kernel is a folder here, in which `registry.kernels` finds it: `__init__.py` checks arguments, registers the operator
and lists `KERNELS`; `reference.py` is the specification in plain torch, which `triton_kernel.py` on a GPU and
`cpu_loop.py` on a CPU equal bit for bit; the former begins with the configurations that `tuning` chooses from;
`cases.py` has the examples that all of them are tested with, and the builds whose machine code is held to a budget.
"""
