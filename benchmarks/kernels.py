"""`python -m benchmarks.kernels`: every kernel against its peers on this machine, side by side.

A peer's answer is compared with the kernel's before it is timed; `!` marks a peer that gives another one, `-` one that
cannot do the work. JSON and a plot go to benchmarks/results/.
"""

import argparse
import sys
from pathlib import Path

import torch

from benchmarks import peers
from benchmarks.harness import environment as machine
from benchmarks.harness import kernel_cases, timing

CPU_SHAPES = "32x64 32x256 32x1024 96x64 96x256 224x64 224x128"
GPU_SHAPES = "32x64 32x256 32x1024 96x64 96x256 96x1024 224x64 224x256 224x1024"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LAYOUTS = {"nchw": False, "channels_last": True}


def several(result) -> tuple:
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def difference(results, expected) -> float:
    """The largest difference of two lists of tensors, of whole numbers the share that differs; infinite for other
    shapes."""
    if [r.shape for r in results] != [e.shape for e in expected]:
        return float("inf")
    return max(_apart(r.to(e.device), e) for r, e in zip(results, expected))


def _apart(result: torch.Tensor, expected: torch.Tensor) -> float:
    if expected.dtype == torch.int64:  # numbers of classes: the next one is as wrong as any
        return float((result != expected).float().mean())
    return float((result.float() - expected.float()).abs().max())


def others(row: kernel_cases.Row, w: kernel_cases.Work, found: dict, expected: tuple) -> tuple[dict, dict]:
    """The peers' calls, and what each is off by, warmed up by that comparison."""
    calls, off = {}, {}
    for name, module in found.items():
        prepare = getattr(module, row.name, None)
        call = prepare(w) if prepare else None
        if call:
            calls[name] = call
            off[name] = difference(getattr(module, "tensors", several)(call()), expected)
    return calls, off


def measure(row: kernel_cases.Row, w: kernel_cases.Work, found: dict, seconds: float) -> dict:
    """One line of the table."""
    device = w.images.device.type
    call = row.prepare(w)
    expected = several(call())
    moved = row.read(w) + sum(out.nbytes for out in expected)
    calls, off = others(row, w, found, expected)
    # what this dtype rounds away is no mistake
    tolerance = max(row.tolerance, 8 * torch.finfo(w.dtype).eps if w.dtype != torch.float32 else 0)
    source = torch.zeros(max(moved // 2, 1), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    del expected
    every = {"tilespin": call, "copy": lambda: target.copy_(source), **calls}
    times = timing.side_by_side(every, device, seconds)
    line = {
        "kernel": row.name,
        "size": w.size,
        "batch": len(w.images),
        "dtype": str(w.dtype).removeprefix("torch."),
        "layout": "channels_last" if w.channels_last else "nchw",
        "bytes": moved,
        "ms": times,
        "right": {name: bool(value <= tolerance) for name, value in off.items()},
        "largest_difference": off,
    }
    if device == "cuda":
        line["device_ms"] = {name: timing.on_device(every[name], seconds / len(every)) for name in every}
        line["host_us"] = {name: timing.host(every[name], device) for name in every}
    return line


def median(line: dict, name: str) -> float | None:
    """Milliseconds: a GPU's own time with a cold cache where it could be captured, else by the wall clock."""
    device = line.get("device_ms", {}).get(name)
    return (device["cold"] if device else line["ms"].get(name, {})).get("p50")


def ratio(line: dict, name: str) -> float | None:
    """How many times as fast as that peer the kernel is: by a GPU's own time if both have one, else by the wall
    clock, launches included, for both."""
    device = line.get("device_ms", {})
    if device.get(name) and device.get("tilespin"):
        return median(line, name) / median(line, "tilespin")
    theirs = line["ms"].get(name)
    return theirs and theirs["p50"] / line["ms"]["tilespin"]["p50"]


def printed(line: dict, names: list[str]) -> str:
    cells = []
    for name in names:
        value = ratio(line, name)
        cells.append("-" if value is None else f"{value:.1f}{'' if line['right'].get(name, True) else '!'}")
    spread = line["ms"]["tilespin"]
    share = median(line, "copy") / median(line, "tilespin")
    host = f"{line['host_us']['tilespin']:.0f}" if "host_us" in line else "-"
    return (
        f"{line['kernel']:<14}{line['size']:>4}{line['batch']:>6} {median(line, 'tilespin'):>9.3f}"
        f" {spread['p20']:>9.3f} {spread['p80']:>9.3f} {share:>6.0%} {host:>7}"
        + "".join(f"{cell:>15}" for cell in cells)
    )


def options(arguments: list[str]) -> argparse.Namespace:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__.split("\n")[0])
    parser.add_argument("--device", default=device, choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch, DALI and the CPU loops")
    parser.add_argument(
        "--shapes", nargs="+", default=(GPU_SHAPES if device == "cuda" else CPU_SHAPES).split(), metavar="SIDExBATCH"
    )
    parser.add_argument("--kernels", nargs="+", default=[row.name for row in kernel_cases.ROWS], metavar="NAME")
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS), choices=LAYOUTS)
    parser.add_argument("--dtype", default="bfloat16" if device == "cuda" else "float32", choices=DTYPES)
    parser.add_argument("--seconds", type=float, default=300.0, help="of timing in all, about; warming up comes on top")
    parser.add_argument("--peers", nargs="*", metavar="NAME", help="those alone; default: every one installed")
    parser.add_argument("--into", type=Path, default=machine.RESULTS, metavar="FOLDER")
    return parser.parse_args(arguments)


def main() -> None:
    chosen = options(sys.argv[1:])
    torch.set_num_threads(chosen.threads)
    found, missing = peers.installed()
    if chosen.peers is not None:
        found = {name: found[name] for name in chosen.peers if name not in missing}
    for name, reason in missing.items():
        print(f"without {name}: {reason}")
    rows = [row for row in kernel_cases.ROWS if row.name in chosen.kernels]
    seconds = chosen.seconds / (len(rows) * len(chosen.shapes) * len(chosen.layouts))
    lines: list[dict] = []
    result = {"machine": machine.describe(), "seconds": chosen.seconds, "missing": missing, "lines": lines}
    for layout in chosen.layouts:
        print(
            f"\nuint8 NHWC to {chosen.dtype} {layout}, {chosen.device}, {chosen.threads} threads; ms and times as fast"
        )
        print(
            f"{'kernel':<14}{'px':>4}{'batch':>6} {'median':>9} {'p20':>9} {'p80':>9} {'copy':>6} {'host us':>7}"
            + "".join(f"{name:>15}" for name in found)
        )
        for shape in chosen.shapes:
            size, batch = map(int, shape.split("x"))
            w = kernel_cases.make(size, batch, chosen.device, DTYPES[chosen.dtype], LAYOUTS[layout])
            for row in rows:
                lines.append(measure(row, w, found, seconds))
                print(printed(lines[-1], list(found)), flush=True)
                # after each line, so that a run that is cut short leaves what it has
                path = machine.keep(f"kernels-{chosen.threads}-threads", result, chosen.into)
    print(f"\n{path}")
    try:
        from benchmarks.plots import roofline
    except ImportError:
        print("without the plot: matplotlib is not installed")
    else:
        roofline.draw(result, path.with_suffix(".svg"))


if __name__ == "__main__":
    main()
