"""`python -m benchmarks.scaling`: what Ray costs a training step against torchrun, and what more workers bring.

Both are measured on the loop of every run, `jobs.pretraining.worker.run_training`, on this machine's GPUs or else its
CPUs. All sides are alive at once and take turns of some steps (benchmarks/harness/alternating.py); start-up does not
count. Ray against torchrun: the same two workers, in ABBA pairs. More workers, through Ray: strong, the same batch
shared, and weak, the same share.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks.harness import environment as machine
from benchmarks.harness.abba import interval, order, percent_text, ratios
from benchmarks.harness.alternating import Side, meeting_point, started

BAR = 1.03  # how many times as long as under torchrun a step may take


def overhead(common: dict, workers: int, batch: int, pairs: int, launcher: str = "ray") -> dict:
    """Steps of torchrun (A) and of another launcher (B) in ABBA pairs; torchrun again shows the method's own error."""
    store = meeting_point()
    same = dict(workers=workers, batch=batch, turns=2 * pairs, port=store.port, **common)
    sides = [Side(name="torchrun", launcher="torchrun", **same), Side(name=f"{launcher}-b", launcher=launcher, **same)]
    with started(sides, store) as running:
        by = dict(zip("AB", running))
        taken = [by[letter].take() for letter in order(pairs)]
    walls, processors = ([one[i] for one in taken] for i in range(2))
    found = ratios(walls)
    names = ("torchrun", launcher if launcher != "torchrun" else "torchrun again")
    of = {
        name: statistics.median(t for t, whose in zip(walls, order(pairs)) if whose == letter)
        for letter, name in zip("AB", names)
    }
    return {
        "launcher": launcher,
        "ratios": found,
        "interval": interval(found),
        "holds": interval(found)["low"] <= BAR,
        "step_ms": {name: 1e3 * seconds for name, seconds in of.items()},
        "processors": interval(ratios(processors)),
    }


def scaling(common: dict, counts: list[int], batch: int, rounds: int, launcher: str) -> list[dict]:
    """A line for each number of workers, strong and weak, with times as fast as the first number's in each round."""
    store = meeting_point()
    same = dict(launcher=launcher, turns=rounds, port=store.port, **common)
    first, *more = counts
    kinds = {(first, "one"): batch}
    kinds |= {(count, "strong"): batch for count in more} | {(count, "weak"): batch * count // first for count in more}
    sides = [
        Side(name=f"{kind}{count}", workers=count, batch=images, **same) for (count, kind), images in kinds.items()
    ]
    taken: list[list[float]] = [[] for _ in sides]
    with started(sides, store) as running:
        for turn in range(rounds):
            places = range(len(sides))
            for i in places if turn % 2 == 0 else reversed(places):
                taken[i].append(running[i].take()[0])
    lines = []
    for (count, kind), side, seconds in zip(kinds, sides, taken):
        rates = [side.batch / one for one in seconds]
        gains = [rate / (sides[0].batch / base) for rate, base in zip(rates, taken[0])]
        lines.append(
            {
                "workers": count,
                "kind": kind,
                "batch": side.batch,
                "step_ms": 1e3 * statistics.median(seconds),
                "images_per_second": statistics.median(rates),
                "gain": interval(gains),
                "efficiency": statistics.median(gains) * first / count,
            }
        )
    return lines


def tell_overhead(found: dict) -> None:
    print("a step, medians: " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in found["step_ms"].items()))
    print(
        f"{found['launcher']} takes longer by {percent_text(found['interval'])}, the median of {len(found['ratios'])} "
        f"ABBA pairs and its {found['interval']['level']:.1%} interval by the sign test; the processors' time by "
        f"{percent_text(found['processors'])}; the bar of 3 % {'holds' if found['holds'] else 'FAILS'}",
        flush=True,
    )


def tell_scaling(lines: list[dict]) -> None:
    print(f"\n{'workers':>7} {'kind':<7} {'batch':>6} {'step ms':>9} {'images/s':>9} {'gain':>20} {'efficiency':>11}")
    for line in lines:
        gain = "{median:.2f} [{low:.2f}, {high:.2f}]".format(**line["gain"])
        print(
            f"{line['workers']:>7} {line['kind']:<7} {line['batch']:>6} {line['step_ms']:>9.1f} "
            f"{line['images_per_second']:>9.0f} {gain:>20} {line['efficiency']:>11.0%}"
        )


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="rotnet")
    parser.add_argument("--encoder", default="convnet")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--size", type=int, help="side of the images in pixels; default: the dataset's own")
    parser.add_argument("--batch", type=int, default=64, help="images in a step; for weak scaling, of the first number")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--pair-workers", type=int, default=2, help="of Ray and of torchrun")
    parser.add_argument("--pairs", type=int, default=21, help="of turns under Ray and torchrun; 0: none")
    parser.add_argument("--rounds", type=int, default=9, help="of all numbers of workers; 0: none")
    parser.add_argument(
        "--against",
        choices=("ray", "torchrun"),
        default="ray",
        help="what torchrun is paired with; itself: what this way of measuring gets wrong",
    )
    parser.add_argument("--launcher", choices=("ray", "torchrun"), default="ray", help="of the numbers of workers")
    parser.add_argument("--steps", type=int, default=20, help="measured in each turn")
    parser.add_argument("--warm", type=int, default=4, help="steps of each turn that do not count")
    parser.add_argument("--into", type=Path, default=machine.RESULTS, help="folder of the result")
    return parser.parse_args()


def main() -> None:
    asked = options()
    result = {"machine": machine.describe(), **{k: v for k, v in vars(asked).items() if k != "into"}}
    print(", ".join(f"{name} {value}" for name, value in result["machine"].items()))
    with tempfile.TemporaryDirectory() as place:
        same = ("task", "encoder", "data", "size", "warm")
        common = {name: getattr(asked, name) for name in same} | {"block": asked.steps}
        if asked.pairs:
            common["folder"] = f"{place}/pairs"
            result["pairs"] = overhead(common, asked.pair_workers, asked.batch, asked.pairs, asked.against)
            tell_overhead(result["pairs"])
        if asked.rounds:
            common["folder"] = f"{place}/scaling"
            counts = [n for n in asked.workers if not torch.cuda.is_available() or n <= torch.cuda.device_count()]
            result["scaling"] = scaling(common, counts, asked.batch, asked.rounds, asked.launcher)
            tell_scaling(result["scaling"])
    path = machine.keep("scaling", result, asked.into)
    print(path)
    if asked.rounds:
        from benchmarks.plots import curves

        curves.scaling(path)


if __name__ == "__main__":
    main()
