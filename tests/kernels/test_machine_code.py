"""The machine code of every kernel, without a GPU: no spills, wide stores, a budget of instructions."""

from dataclasses import replace

import pytest

from benchmarks.machine_code import ARCHITECTURES, compile_build, configurations, faults
from kernels import registry

BUILDS = [
    pytest.param(build, arch, id=f"{kernel.name}-{index}-sm_{arch}")
    for kernel in registry.kernels()
    for index, build in enumerate(kernel.builds())
    for arch in ARCHITECTURES
]
MOST_REGISTERS = 224  # of a default configuration
pytestmark = [
    pytest.mark.skipif(registry.INTERPRETED, reason="nothing is compiled under the interpreter"),
    pytest.mark.slow,
]


@pytest.mark.parametrize(("build", "arch"), BUILDS)
def test_build_passes_the_gate(build, arch):
    code = compile_build(build, arch)
    assert not faults(build, code)
    assert 0 < code.registers <= 255 and code.operations


@pytest.mark.parametrize(
    ("kernel", "index"),
    [
        pytest.param(kernel, index, id=f"{kernel.name}-{index}")
        for kernel in registry.kernels()
        if kernel.name != "rotate_all"  # as `rotate`, but its loop gets unrolled in some, so numbers say less
        for index, _ in enumerate(kernel.builds())
    ],
)
def test_the_default_configuration_has_the_fewest_instructions(kernel, index):
    """Of those that would not spill with another version of Triton either; five in a hundred are no difference."""
    instructions = {}
    for name, build in configurations(kernel, index):
        code = compile_build(build, 90)
        if code.registers <= MOST_REGISTERS and not any("spills" in fault for fault in faults(build, code)):
            instructions[name] = code.per_element(build)
    assert instructions["default"] <= 1.05 * min(instructions.values()), instructions


def build_of(name: str):
    return next(iter(next(kernel for kernel in registry.kernels() if kernel.name == name).builds()))


def test_gate_sees_a_planted_spill():
    """A block of pixels far too large for the registers of one warp."""
    build = build_of("shuffle_tiles")
    planted = replace(build, constants={**build.constants, "BLOCK": 64}, warps=1, elements=3 * 4096, budget=1e9)
    assert any("spills" in fault for fault in faults(planted, compile_build(planted, 90)))


def test_gate_sees_a_planted_narrow_store():
    """Rows of an odd length do not start at multiples of sixteen bytes."""
    build = build_of("rotate")
    planted = replace(build, constants={**build.constants, "SIZE": 223})
    assert any("narrow stores" in fault for fault in faults(planted, compile_build(planted, 90)))


def test_gate_sees_too_many_instructions():
    build = replace(build_of("rotate"), budget=5)
    assert any("budget 5" in fault for fault in faults(build, compile_build(build, 90)))
