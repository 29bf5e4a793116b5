"""Run with TRITON_INTERPRET=1 and a folder: every configuration of every kernel gives the reference's results; a
measurement keeps the fastest in a table in that folder, and launches take what the table says."""

import sys
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import torch

from benchmarks.tune import measure
from kernels import registry, tuning
from kernels.erase import triton_kernel
from support.example_variants import several
from support.interpreted import agrees

FEW = 5  # examples: of both layouts, with floats and bytes
CAPABILITY = 7, 5


def check_configurations(kernel):
    examples = list(islice(kernel.examples(torch.Generator().manual_seed(2)), FEW))
    expected = [several(kernel.reference(*arguments)) for arguments in examples]
    for tunable in kernel.tunables:
        assert len(set(map(tuning.label, tunable.configs))) > 1
        for config in tunable.configs:
            with tuning.override({tunable.name: config}) as asked:
                for index, (arguments, wanted) in enumerate(zip(examples, expected, strict=True)):
                    results = several(kernel.op(*arguments))
                    if not all(agrees(*pair) for pair in zip(results, wanted, strict=True)):
                        print(f"{tunable.name} {tuning.label(config)}: example {index}")
                assert tunable.name in asked
        print(f"checked {tunable.name}")


class Recorder:
    """A jitted kernel that keeps the keyword arguments of its launches."""

    def __init__(self, kernel):
        self.kernel, self.launches = kernel, []

    def __getitem__(self, grid):
        def launch(*arguments, **options):
            self.launches.append((grid, options))
            return self.kernel[grid](*arguments, **options)

        return launch


def check_table(folder):
    """The whole way for one kernel, with a made-up timer and compute capability."""
    kernel = next(kernel for kernel in registry.kernels() if kernel.name == "erase")
    (tunable,) = kernel.tunables
    arguments = list(kernel.examples(torch.Generator().manual_seed(2)))[3]  # 33 px, bfloat16, NCHW
    chosen, recorder = tunable.configs[-1], Recorder(triton_kernel.erase_kernel)

    def timer(calls):
        for call in calls.values():
            call()
        return {name: 1.0 if name == tuning.label(chosen) else 2.0 for name in calls}

    with patch.object(triton_kernel, "erase_kernel", recorder):
        (entry,) = measure(kernel, lambda: kernel.op(*arguments), timer)
        assert (entry.size, entry.bits, entry.channels_last) == (33, 16, False)
        assert entry.config == tuning.describe(chosen)
        assert len(recorder.launches) == 1 + 2 * len(tunable.configs)
        tuning.save_table(tuning.table_path(folder, CAPABILITY), {"gpu": "none"}, [entry])
        recorder.launches.clear()
        kernel.op(*arguments)
        with patch.object(tuning, "FOLDER", folder), patch.object(tuning, "compute_capability", lambda _: CAPABILITY):
            kernel.op(*arguments)
    (_, default), (grid, measured) = recorder.launches
    for options, config in ((default, tunable.configs[0]), (measured, chosen)):
        assert {name: options[name] for name in tuning.describe(config)} == tuning.describe(config)
    assert chosen.kwargs["SIDE"] == 16 and grid == (3 * 3**2,)
    print("checked the table")


def main():
    assert registry.INTERPRETED
    torch.set_num_threads(1)
    for kernel in registry.kernels():
        check_configurations(kernel)
    check_table(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
