"""`python -m benchmarks.harness.per_step_rows MARKS ARGUMENTS`: `tilespin ARGUMENTS` of a pretraining with a row for
every step; the moments at which the driver came so far are added to the file MARKS."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import jobs.cli
import jobs.commands.pretrain
import jobs.execution.run
import jobs.pretraining.run
import jobs.pretraining.worker


def watch(marks: str) -> None:
    """Puts the marks "imported", "checked" (the command is good) and "ray" (it answers) into this process's way."""

    def mark(name: str) -> None:
        with open(marks, "a") as file:
            file.write(json.dumps([name, time.time()]) + "\n")

    @contextmanager
    def session(**options) -> Iterator:
        with opened(**options) as found:
            mark("ray")
            yield found

    def run_plan(plan) -> None:
        mark("checked")
        done(plan)

    opened, done = jobs.execution.run.session, jobs.commands.pretrain.run_plan
    jobs.execution.run.session, jobs.commands.pretrain.run_plan = session, run_plan  # pyright: ignore
    jobs.pretraining.run.Training = partial(jobs.pretraining.run.Training, log_every=1)  # pyright: ignore
    mark("imported")


if __name__ == "__main__":
    watch(sys.argv[1])
    sys.argv[1:] = sys.argv[2:]
    jobs.cli.main()
