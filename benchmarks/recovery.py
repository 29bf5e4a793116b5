"""`python -m benchmarks.recovery`: seconds from the command to the first step, and what each kind of fault costs.

One pretraining on two workers, typed as a user types it and watched from outside, meets one fault of each kind in the
middle between two checkpoints: on a Ray that the command starts itself, and on a cluster of three machines of one CPU,
of which one is spare. Then a worker is killed every so many seconds: the part of the time that was not lost.
"""

import argparse
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import environment as machine
from benchmarks.harness.local_nodes import Machine, Machines
from benchmarks.harness.observed_run import Watched, cost
from benchmarks.plots import curves

NOTICE = 60  # seconds of a preemption notice
SPARE = 3  # machines for two workers


def arguments(asked: argparse.Namespace, place: str, *more: str) -> list[str]:
    """A training that does not end by itself."""
    return [
        "pretrain",
        "rotnet",
        "--data",
        asked.data,
        "--batch",
        str(asked.batch),
        "--steps",
        "1000000",
        "--workers",
        "2",
        "--checkpoint-every",
        str(asked.every),
        "--wandb",
        "off",
        "--storage",
        place,
        *more,
    ]


def start(run: Watched) -> dict[str, float]:
    """Types the command; -> seconds of each part until the first step."""
    typed = run.type()
    return run.parts(typed, run.until(lambda: run.furthest))


def midway(run: Watched, every: int) -> None:
    """Waits until a later checkpoint is half an interval old."""
    step = (run.look() // every + 1) * every + every // 2
    run.until(lambda: run.rows and run.rows[-1]["step"] >= step)


def signaled(run: Watched, which: signal.Signals) -> None:
    """Sends the driver a signal."""
    assert run.process
    os.kill(run.process.pid, which)


def on_own_ray(asked: argparse.Namespace) -> tuple[dict, list[dict]]:
    """-> (the parts of a start, what it costs if the driver is killed, and with it its Ray)."""
    with tempfile.TemporaryDirectory(prefix="own") as place:
        run = Watched(arguments(asked, place), Path(place), {})
        try:
            parts, lines = start(run), []
            for _ in range(asked.times):
                midway(run, asked.every)
                found = cost(run, lambda: signaled(run, signal.SIGKILL), retype=True)
                lines.append({"fault": "driver and its Ray killed, retyped", **found})
                print_line(lines[-1])
            return parts, lines
        finally:
            run.end()


def faults(run: Watched, machines: Machines) -> dict[str, tuple[Callable[[Machine], object], bool, bool]]:
    """By name: what is done to a machine on which a worker trains; whether the command has to be typed again, and
    whether the machine is gone then."""

    def hurt(one: Machine, which: signal.Signals) -> None:
        os.kill(one.trains()[0], which)

    return {
        "worker killed": (lambda one: hurt(one, signal.SIGKILL), False, False),
        "worker frozen": (lambda one: hurt(one, signal.SIGSTOP), False, False),
        "machine to be taken away": (lambda one: machines.drain(one, NOTICE), False, True),
        "machine lost": (lambda one: one.cut(), False, True),
        "driver killed, retyped": (lambda _: signaled(run, signal.SIGKILL), True, False),
        "driver told to leave, retyped": (lambda _: signaled(run, signal.SIGTERM), True, False),
        "machine lost, with the controller": (lambda one: one.cut(), False, True),
    }


def on_machines(asked: argparse.Namespace) -> tuple[dict, list[dict], float, dict | None]:
    """-> (the parts of a start, a line for each fault, seconds of a step, the goodput under many faults). After a fault
    that is not survived, whose line says so, no other comes."""
    with tempfile.TemporaryDirectory(prefix="on") as place, Machines(SPARE, settings={}) as machines:
        run = Watched(arguments(asked, place, "--address", machines.address), Path(place), {})
        try:
            parts, lines, steps = start(run), [], []
            for name, (fault, retype, gone) in list(faults(run, machines).items()) * asked.times:
                midway(run, asked.every)
                steps.append(run.step_seconds())
                victim = chosen(machines, controller="controller" in name)
                if victim is None:
                    print(f"{name}: not caused, it runs on the head", flush=True)
                    continue
                try:
                    found = cost(run, lambda fault=fault, victim=victim: fault(victim), retype)
                except RuntimeError as error:
                    print(f"{name}: NOT SURVIVED: {error}", flush=True)
                    return parts, [*lines, {"fault": name, "failed": str(error)}], statistics.median(steps), None
                lines.append({"fault": name, **found})
                print_line(lines[-1])
                if gone:
                    victim.cut()  # which is still there if it was only to be taken away
                    machines.replace(victim)
            goodput = under_faults(run, machines, asked.faults, asked.apart) if asked.faults else None
            return parts, lines, statistics.median(steps), goodput
        finally:
            run.end()


def chosen(machines: Machines, controller: bool) -> Machine | None:
    """The one with the training's controller, unless that is the head; or one with a worker, if possible without."""
    if controller:
        return next((one for one in machines.working if one.controllers()), None)
    return min(training(machines), key=lambda one: len(one.controllers()))


def training(machines: Machines) -> list[Machine]:
    """Those on which a training's workers run."""
    return [one for one in machines.working if one.trains()]


def under_faults(run: Watched, machines: Machines, count: int, apart: float) -> dict:
    """A worker is killed every `apart` seconds, `count` times. Goodput: the seconds that the steps which came of it
    take undisturbed, as part of all."""
    begun, first, usual = time.monotonic(), run.furthest, []
    for i in range(count):
        run.until(lambda until=begun + i * apart + apart / 2: time.monotonic() > until and training(machines))
        usual.append(run.step_seconds())
        os.kill(training(machines)[-1].trains()[0], signal.SIGKILL)
    run.until(lambda: time.monotonic() > begun + count * apart)
    seconds, steps = time.monotonic() - begun, run.furthest - first
    step = statistics.median(usual)
    return {
        "faults": count,
        "seconds": seconds,
        "steps": steps,
        "step_ms": 1e3 * step,
        "goodput": steps * step / seconds,
    }


def print_line(line: dict) -> None:
    print(
        f"{line['fault']:<36} {line['noticed']:>8.1f} {line['resumed']:>8.1f} {line['recovered']:>10.1f} "
        f"{line['lost']:>6}",
        flush=True,
    )


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--every", type=int, default=50, help="steps between checkpoints")
    parser.add_argument("--times", type=int, default=1, help="that each fault is caused")
    parser.add_argument("--faults", type=int, default=4, help="for the goodput; 0: not measured")
    parser.add_argument("--apart", type=float, default=60.0, help="seconds between them")
    parser.add_argument("--into", type=Path, default=machine.RESULTS, help="folder of the result")
    return parser.parse_args()


def main() -> None:
    asked = options()
    result = {"machine": machine.describe(), **{k: v for k, v in vars(asked).items() if k != "into"}}
    print(", ".join(f"{name} {value}" for name, value in result["machine"].items()))
    print(f"{'seconds after a fault until it is':<36} {'noticed':>8} {'resumed':>8} {'recovered':>10} {'lost':>6}")
    own, lines = on_own_ray(asked)
    shared, more, step, goodput = on_machines(asked)
    starts = {"Ray started by the command": own, "a cluster of machines joined": shared}
    for name, parts in starts.items():
        said = ", ".join(f"{part} {seconds:.1f}" for part, seconds in parts.items())
        print(f"{name}: {sum(parts.values()):.1f} s to the first step: {said}")
    if goodput:
        print(f"a worker killed every {asked.apart:.0f} s, {goodput['faults']} times: goodput {goodput['goodput']:.0%}")
    result |= {"starts": starts, "step_ms": 1e3 * step, "faults": lines + more, "under_faults": goodput}
    path = machine.keep("recovery", result, asked.into)
    print(path)
    curves.recovery(path)


if __name__ == "__main__":
    main()
