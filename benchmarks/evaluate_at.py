"""`python -m benchmarks.evaluate_at`: what evaluating encoders along a training costs that training.

The same training on Ray, in one process, with and without `--evaluate-at`, in the order A B B A again and again: the
time that the training itself took, from encoder.json. Evaluations run beside it where a core is free, so this is for a
machine with two cores or more that nobody else uses.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import abba
from benchmarks.harness.environment import describe, keep
from ssl_core.storage.records import EncoderRecord

POINTS = ["0.2", "0.4", "0.6", "0.8"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=6, help="A B B A, this often; at least 6")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--task", default="simclr")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        taken = []
        for number, side in enumerate(abba.order(options.pairs)):
            taken.append(_seconds(options, Path(folder) / str(number), side == "B"))
            print(f"{'with' if side == 'B' else 'without'} --evaluate-at: {taken[-1]:.1f} s", flush=True)
    found = abba.interval(abba.ratios(taken))
    print(f"with over without: {abba.percent_text(found)}")
    what = {"task": options.task, "steps": options.steps, "evaluate_at": POINTS, "data": options.data}
    keep("evaluate-at", {"machine": describe(), **what, "order": abba.order(options.pairs), "seconds": taken, **found})


def _seconds(options: argparse.Namespace, storage: Path, evaluated: bool) -> float:
    """Returns how long the training of a study took."""
    command = [sys.executable, "-m", "jobs.cli", "study", "--data", options.data, "--tasks", options.task]
    command += ["--no-supervised", "--steps", str(options.steps), "--workers", "1", "--protocols", "knn"]
    command += ["--wandb", "off", "--storage", str(storage), "--name", "s"]
    command += ["--evaluate-at", *POINTS] if evaluated else []
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (file,) = storage.glob("s/pretrain/*/encoder.json")
    trained = EncoderRecord.read(file).training
    assert trained is not None
    return trained.seconds


if __name__ == "__main__":
    main()
