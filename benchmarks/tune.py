"""`python -m benchmarks.tune`: the fastest configuration of every kernel on this GPU, kept for launches to look up.

Each kernel's configurations (`kernels/tuning.py`) run in turns, as CUDA graphs with a cold L2 cache, and are compared
by their medians; one with other results than the default's ends the command. The table of this compute capability is
written after every measurement, so that a run which is cut off keeps what it has. Without `--into` it is the package's
own, which the next process uses.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks.harness import environment, kernel_cases, timing
from kernels import registry, tuning

SHAPES = "224x256 96x256 32x1024"
# what trains on GPUs comes first, for the case that time is short
OUTPUTS = (
    (torch.bfloat16, False),
    (torch.bfloat16, True),
    (torch.float32, False),
    (torch.float32, True),
)


def several(result) -> tuple:
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def run_with(configs: dict, call: Callable):
    with tuning.override(configs):
        return call()


def measure(
    kernel: registry.Kernel, call: Callable, timer: Callable[[dict[str, Callable]], dict[str, float]]
) -> Iterator[tuning.Entry]:
    """The fastest configuration of each of a kernel's launches, one after the other: a launch is measured with those
    before it at their fastest. `timer` says the milliseconds of each call."""
    with tuning.override({}) as asked:
        expected, keys = several(call()), dict(asked)
    best = {}
    for tunable in kernel.tunables:
        calls = {}
        for config in tunable.configs:
            name = tuning.label(config)
            calls[name] = partial(run_with, {**best, tunable.name: config}, call)
            if not all(map(torch.equal, several(calls[name]()), expected)):
                raise SystemExit(f"{tunable.name}: with {name} the results are not those of the default")
        milliseconds = timer(calls)
        best[tunable.name] = min(tunable.configs, key=lambda config: milliseconds[tuning.label(config)])
        yield tuning.Entry(tunable.name, *keys[tunable.name], tuning.describe(best[tunable.name]), {**milliseconds})


def printed(entry: tuning.Entry, tunable: tuning.Tunable) -> str:
    default = tuning.label(tunable.default(tuning.Key(entry.size, entry.bits, entry.channels_last)))
    fastest = min(entry.milliseconds, key=lambda name: entry.milliseconds[name])
    layout = "channels_last" if entry.channels_last else "nchw"
    all_of_them = ", ".join(f"{name} {1e3 * value:.1f}" for name, value in entry.milliseconds.items())
    gain = entry.milliseconds[default] / entry.milliseconds[fastest]
    return f"{entry.name:<18}{entry.size:>4} px {entry.bits:>2} bits {layout:<14}{gain:>5.2f}  {all_of_them}"


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tune", description=__doc__.split("\n")[0])
    parser.add_argument("--shapes", nargs="+", default=SHAPES.split(), metavar="SIDExBATCH")
    parser.add_argument("--seconds", type=float, default=300.0, help="after which nothing more is begun")
    parser.add_argument("--into", type=Path, default=tuning.FOLDER, metavar="FOLDER", help="default: kernels/tuned")
    return parser.parse_args(arguments)


def main() -> int:
    chosen = options(sys.argv[1:])
    if not torch.cuda.is_available():
        print("python -m benchmarks.tune: torch sees no GPU, and configurations are of GPUs alone", file=sys.stderr)
        return 2
    end = time.monotonic() + chosen.seconds
    capability = torch.cuda.get_device_capability()
    path, machine = tuning.table_path(chosen.into, capability), environment.describe()
    kernels = {kernel.name: kernel for kernel in registry.kernels()}
    entries: dict[tuple, tuning.Entry] = {}  # two kernels' outputs may have the same key; then the last one's holds
    work = [(output, shape, row) for output in OUTPUTS for shape in chosen.shapes for row in kernel_cases.ROWS]
    print("times as fast as the default, and microseconds of each configuration")
    for done, ((dtype, channels_last), shape, row) in enumerate(work):
        if time.monotonic() > end:
            print(f"out of time: {len(work) - done} of {len(work)} were not measured and stay as by default")
            break
        size, batch = map(int, shape.split("x"))
        call = row.prepare(kernel_cases.make(size, batch, "cuda", dtype, channels_last))
        for entry in measure(kernels[row.name], call, timing.alternating):
            entries[entry.name, entry.size, entry.bits, entry.channels_last] = entry
            tunable = next(one for one in kernels[row.name].tunables if one.name == entry.name)
            print(printed(entry, tunable), flush=True)
            tuning.save_table(path, machine, entries.values())
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
