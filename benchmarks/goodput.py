"""`python -m benchmarks.goodput`: a SIMULATION of how much of the time training advances, from 8 to 4,096 GPUs.

Faults come at random (exponential gaps) at published rates; what one costs comes from the results of
benchmarks.recovery and benchmarks.checkpoints on this machine, or from the options. Nothing is measured here, and a
restart of thousands of workers takes longer than one of two: a slower one is simulated beside it.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import environment as machine

GPUS = (8, 64, 512, 1024, 2048, 4096)
# Hours of all GPUs together between two faults: 1,024 GPUs for 7.9 h were observed, 16,384 for 1.8 h projected by
# Kokolis et al., Revisiting Reliability in Large-Scale Machine Learning Research Clusters (arXiv 2410.21680).
OBSERVED, PROJECTED = 1024 * 7.9, 16384 * 1.8
SLOW = 600.0  # seconds: a machine has to be found, and thousands of processes started


@dataclass(frozen=True)
class Parts:
    """What the simulation is made of, in seconds."""

    stall: float  # that a checkpoint holds up training
    written: float  # from then until it can be continued from, beside training
    restarts: tuple[float, ...]  # from a fault until training goes on, each as likely


def simulate(parts: Parts, mttf: float, every: float, faults: int, seed: int = 0) -> float:
    """The part of the time in which steps are made that stay, with a checkpoint after each `every` seconds of steps
    and so many faults, on average `mttf` seconds apart; a fault may also hit a restart."""
    chance = np.random.default_rng(seed)
    gaps = chance.exponential(mttf, faults)
    restarts = chance.choice(parts.restarts, faults)
    useful = clock = 0.0
    left, debt = 0.0, 0.0  # of a restart; of time that passes until the state from before the fault is reached again
    cycle = every + parts.stall
    for gap, restart in zip(gaps, restarts):
        clock += gap
        if gap <= left + debt:  # nothing new was kept
            left = restart
            continue
        run = gap - left - debt
        useful += every * (run // cycle)
        left, debt = restart, parts.written
    return useful / clock


def formula(parts: Parts, mttf: float, every: float) -> float:
    """What `simulate` comes to with many faults, for one length of restarts: Daly (2006), with checkpoints that are
    safe only `written` seconds later.

    From one safe checkpoint to the next takes every + stall, if no fault comes. After one it takes the restart and
    `written` as well, from the start again at each further fault.
    """
    (restart,) = set(parts.restarts)
    length = every + parts.stall
    fails = -math.expm1(-length / mttf)
    again = mttf * math.expm1((restart + parts.written + length) / mttf)
    return every / (fails * (mttf + again))


def young(stall: float, mttf: float) -> float:
    """The best time between checkpoints to first order, in seconds: Young (1974), doi 10.1145/361147.361115."""
    return math.sqrt(2 * stall * mttf)


def daly(stall: float, mttf: float) -> float:
    """The same to higher order: Daly (2006), doi 10.1016/j.future.2004.11.016."""
    if stall >= 2 * mttf:
        return mttf
    part = stall / (2 * mttf)
    return young(stall, mttf) * (1 + math.sqrt(part) / 3 + part / 9) - stall


def scenario(parts: Parts, gpu_hours: float, faults: int) -> list[dict]:
    """A line for each number of GPUs, at the interval that Daly's formula says."""
    lines = []
    for gpus in GPUS:
        mttf = 3600 * gpu_hours / gpus
        every = daly(parts.stall, mttf)
        mean = Parts(parts.stall, parts.written, (float(np.mean(parts.restarts)),))
        lines.append(
            {
                "gpus": gpus,
                "mttf_hours": mttf / 3600,
                "every": every,
                "simulated": simulate(parts, mttf, every, faults),
                "formula": formula(mean, mttf, every),
                "minutes_10": formula(mean, mttf, 600),
                "hours_1": formula(mean, mttf, 3600),
            }
        )
    return lines


def newest(name: str, folder: Path) -> dict:
    """The last result of that name. Exits with a line if there is none."""
    found = sorted(folder.glob(f"*-{name}-*.json"))
    if not found:
        sys.exit(f"no result {name} in {folder}: run its benchmark first, or give --stall, --written and --restarts")
    return json.loads(found[-1].read_text())


def measured(asked: argparse.Namespace) -> Parts:
    """The options, and results in place of those not given."""
    stall, written, restarts = asked.stall, asked.written, asked.restarts
    if stall is None or written is None:
        found = newest("checkpoints", asked.results)
        # what the pairs say of a whole interval, its writing included, if that is more than the step's own delay
        paired = (found["interval"]["median"] - 1) * found["every"] * found["step_ms"]
        stall = max(found["stall_ms"], paired, found["copied_ms"]) / 1e3 if stall is None else stall
        written = found["written_ms"] / 1e3 if written is None else written
    if restarts is None:
        hurt = ("worker killed", "worker frozen", "machine lost", "driver killed, retyped")
        restarts = [
            one["resumed"]
            for one in newest("recovery", asked.results)["faults"]
            if one["fault"] in hurt and "resumed" in one
        ]
    return Parts(stall, written, tuple(restarts))


def options(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stall", type=float, help="seconds that a checkpoint holds up training")
    parser.add_argument("--written", type=float, help="seconds until it is safe")
    parser.add_argument("--restarts", type=float, nargs="+", help="seconds from faults until training goes on")
    parser.add_argument("--faults", type=int, default=200_000, help="simulated for each number of GPUs")
    parser.add_argument("--results", type=Path, default=machine.RESULTS, help="folder of what was measured")
    parser.add_argument("--into", type=Path, default=machine.RESULTS, help="folder of the result")
    return parser.parse_args(words)


def main() -> None:
    asked = options()
    parts = measured(asked)
    slow = Parts(parts.stall, parts.written, (SLOW,))
    scenarios = {
        "faults as projected, restarts as measured": scenario(parts, PROJECTED, asked.faults),
        "faults as observed, restarts as measured": scenario(parts, OBSERVED, asked.faults),
        f"faults as observed, restarts of {SLOW:.0f} s": scenario(slow, OBSERVED, asked.faults),
    }
    print(
        f"simulated: a stall of {1e3 * parts.stall:.1f} ms, safe {1e3 * parts.written:.0f} ms later, restarts of "
        f"{', '.join(f'{one:.0f}' for one in parts.restarts)} s"
    )
    for name, lines in scenarios.items():
        print(
            f"\n{name}\n{'GPUs':>6} {'hours to a fault':>17} {'best interval, s':>17} {'goodput':>9} "
            f"{'every 10 min':>13} {'every hour':>11}"
        )
        for line in lines:
            print(
                f"{line['gpus']:>6} {line['mttf_hours']:>17.1f} {line['every']:>17.1f} {line['simulated']:>9.2%} "
                f"{line['minutes_10']:>13.2%} {line['hours_1']:>11.2%}"
            )
    result = {"machine": machine.describe(), "simulation": True, **vars(parts), "scenarios": scenarios}
    path = machine.keep("goodput", result, asked.into)
    print(path)
    from benchmarks.plots import curves

    curves.goodput(path)


if __name__ == "__main__":
    main()
