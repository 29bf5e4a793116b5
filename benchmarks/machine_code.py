"""`python -m benchmarks.machine_code`: what a GPU would execute, read from ahead-of-time compilation.

Needs no GPU. Each kernel's cases.py names its builds and a budget of instructions for each output element; the tests
hold every build, in its default configuration, to it on every architecture. This prints the whole table, and what each
build is in every other configuration.
"""

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels import tuning
from kernels.registry import Build, Kernel, kernels

ARCHITECTURES = (80, 90, 100)  # A100, H100 and H200, B200
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


@dataclass(frozen=True)
class Code:
    """The machine code of one build: registers a thread, bytes of stack and local memory, instructions."""

    registers: int
    stack: int
    local: int
    operations: Counter  # by full name, such as STG.E.128

    def named(self, *starts: str) -> Counter:
        """The operations whose names start with one of `starts`."""
        return Counter({name: count for name, count in self.operations.items() if name.startswith(starts)})

    def per_element(self, build: Build) -> float:
        """Instructions that a thread executes for each output element it writes; branches count all their sides."""
        return sum(self.operations.values()) * 32 * build.warps / build.elements


def several(kind: str | tuple[str, ...]) -> tuple[str, ...]:
    """The types of a runtime argument, which may be a tuple of pointers."""
    return kind if isinstance(kind, tuple) else (kind,)


def compile_build(build: Build, arch: int) -> Code:
    """Compiles for sm_`arch` with pointers aligned to 16 bytes, as the launchers' own tensors are."""
    names = build.function.arg_names
    types = {name: build.types.get(name, "constexpr") for name in names}
    pointers = (
        (i, j) if isinstance(types[name], tuple) else (i,)
        for i, name in enumerate(names)
        for j, kind in enumerate(several(types[name]))
        if kind.startswith("*")
    )
    aligned = {place: [["tt.divisibility", 16]] for place in pointers}
    source = ASTSource(fn=build.function, signature=types, constexprs=dict(build.constants), attrs=aligned)
    options = {"num_warps": build.warps, "enable_fp_fusion": False}
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage, listing = (
            subprocess.run([CUOBJDUMP, option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("-res-usage", "-sass")
        )
    registers, stack, local = map(int, re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", usage).groups())
    operations = Counter(re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][\w.]*)", listing))
    operations.pop("NOP", None)  # padding behind the end
    return Code(registers, stack, local, operations)


def configurations(kernel: Kernel, index: int) -> Iterator[tuple[str, Build]]:
    """The index-th build of a kernel in each configuration of its launch, with the configuration's label; the default
    comes first."""
    default = list(kernel.builds())[index]
    yield "default", default
    for config in default.tunable.configs:
        with tuning.override({default.tunable.name: config}):
            build = list(kernel.builds())[index]
        if (build.constants, build.warps) != (default.constants, default.warps):
            yield tuning.label(config), replace(build, budget=float("inf"))


def faults(build: Build, code: Code) -> list[str]:
    """What the gate holds against a build: spills, stores narrower than they could be, too many instructions."""
    found = []
    if code.stack or code.local or code.named("STL", "LDL"):
        found.append(f"spills: {code.stack} bytes of stack, {dict(code.named('STL', 'LDL'))}")
    if build.vectorized:
        # a plane of uint8 is stored eight pixels at a time, everything else sixteen bytes
        bytes_out = any("*u8" in several(kind) for name, kind in build.types.items() if name in ("out", "outs", "mask"))
        wide = {"STG.E.128", "STG.E.64"} if bytes_out else {"STG.E.128"}
        if narrow := {name: count for name, count in code.named("STG").items() if name not in wide}:
            found.append(f"narrow stores: {narrow}")
    if code.per_element(build) > build.budget:
        found.append(f"{code.per_element(build):.1f} instructions an element, budget {build.budget}")
    return found


def main() -> None:
    print(f"triton {triton.__version__}")
    print(f"{'build':<16} {'arch':>6} {'regs':>4} {'stack':>5} {'instr/elt':>9} {'budget':>6}  which; stores; faults")
    for kernel in kernels():
        for index, _ in enumerate(kernel.builds()):
            for name, build in configurations(kernel, index):
                for arch in ARCHITECTURES:
                    code = compile_build(build, arch)
                    stores = " ".join(f"{count} {name}" for name, count in sorted(code.named("STG").items()))
                    row = f"{kernel.name + ' ' + str(index):<16} sm_{arch:<3} {code.registers:>4} {code.stack:>5}"
                    row += f" {code.per_element(build):>9.1f} {build.budget:>6.1f}"
                    print("; ".join([f"{row}  {name}", stores, *faults(build, code)]))


if __name__ == "__main__":
    main()
