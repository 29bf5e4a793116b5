"""Every kernel the package holds: its implementations agree, and its operator is registered well."""

import os
import pathlib
import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from kernels import registry

KERNELS = registry.kernels()
ROOT = pathlib.Path(__file__).parents[2]
each_kernel = pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)


def examples(kernel):
    return list(kernel.examples(torch.Generator().manual_seed(0)))


def several(result):
    return (result,) if isinstance(result, torch.Tensor) else tuple(result)


def layout(tensor):
    return tensor.dtype, tuple(tensor.shape), tensor.stride()


def test_all_kernels_are_found():
    assert {"rotate", "rotate_all", "shuffle_tiles", "erase", "crop_flip", "photometric", "draw"} <= {
        kernel.name for kernel in KERNELS
    }
    assert all(kernel.builds for kernel in KERNELS)


@each_kernel
def test_cpu_equals_reference(kernel):
    for index, arguments in enumerate(examples(kernel)):
        for result, expected in zip(
            several(kernel.cpu(*arguments)), several(kernel.reference(*arguments)), strict=True
        ):
            assert layout(result) == layout(expected), index
            assert torch.equal(result, expected), index


@pytest.mark.slow
def test_interpreted_triton_equals_reference():
    environment = dict(os.environ, TRITON_INTERPRET="1", OMP_NUM_THREADS="1", PYTHONPATH=f"{ROOT}:{ROOT}/tests")
    run = subprocess.run(
        [sys.executable, "-m", "support.interpreted"], env=environment, capture_output=True, text=True, timeout=900
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [f"checked {kernel.name}" for kernel in KERNELS]


@each_kernel
@pytest.mark.slow
def test_operator_is_registered_well(kernel):
    chosen = examples(kernel)
    for arguments in (chosen[0], chosen[4]):
        torch.library.opcheck(kernel.op, arguments)


@each_kernel
@pytest.mark.slow
def test_operator_compiles(kernel):
    torch.compiler.reset()  # which has a limit for one piece of code, such as this, that is compiled again and again
    arguments = examples(kernel)[5]
    compiled = torch.compile(lambda *a: kernel.op(*a), fullgraph=True, backend="aot_eager")
    for result, expected in zip(several(compiled(*arguments)), several(kernel.op(*arguments)), strict=True):
        assert torch.equal(result, expected)


@each_kernel
@pytest.mark.slow
def test_operator_has_cuda_shapes_without_a_gpu(kernel):
    for arguments in examples(kernel):
        with FakeTensorMode():
            fakes = [
                torch.empty_strided(a.shape, a.stride(), dtype=a.dtype, device="cuda")
                if isinstance(a, torch.Tensor)
                else a
                for a in arguments
            ]
            results = several(kernel.op(*fakes))
        assert [layout(r) for r in results] == [layout(e) for e in several(kernel.reference(*arguments))]
        assert all(result.device.type == "cuda" for result in results)


@pytest.mark.gpu
@each_kernel
def test_gpu_equals_reference(kernel):
    for index, arguments in enumerate(examples(kernel)):
        there = [a.cuda() if isinstance(a, torch.Tensor) else a for a in arguments]
        results, expected = several(kernel.op(*there)), several(kernel.reference(*arguments))
        for result, wanted in zip(results, expected, strict=True):
            assert layout(result) == layout(wanted), index
            assert torch.equal(result.cpu(), wanted), index
