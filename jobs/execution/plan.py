"""Plans what there is to do in a study: pretrainings and evaluations, and says how much that is."""

import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import jobs.pretraining.worker as worker
from cluster.job import Job
from cluster.worker_group import run_worker_group
from jobs.config.evaluation import Evaluation
from jobs.config.runtime import RuntimeConfig, WorkerRange
from jobs.evaluation.encoders import EvaluatedEncoder
from jobs.evaluation.jobs import EVALUATION, evaluation_jobs, protocols_for
from jobs.evaluation.tracking import TRACKING
from jobs.execution.forecast import forecast_trainings
from jobs.pretraining.dictionary import DictionaryRun, learn
from jobs.pretraining.run import Training, decode_threads
from jobs.study.folder import Study
from ssl_core.data.dataset import Source, open_source
from ssl_core.storage.records import EncoderRecord
from ssl_core.task import task_name


@dataclass(frozen=True)
class StudyPlan:
    """Holds what is to be done: pretrainings that are not complete, and the encoders to evaluate (finished and
    planned)."""

    study: Study
    runtime: RuntimeConfig
    trainings: list[Training]
    encoders: list[EvaluatedEncoder]
    evaluation: Evaluation | None = None
    dictionaries: Sequence[DictionaryRun] = ()

    def sources(self) -> list[Source]:
        """Opens the datasets that the plan trains or evaluates on."""
        trained = [open_source(one.recipe.data, one.recipe.size) for one in self.trainings]
        return [*trained, *(one.source for one in self.encoders)]

    def outline(self, jobs: list[Job]) -> list[str]:
        """Returns how many trainings and evaluations there are, of what, and how many are there already.

        Args:
            jobs: Those that are missing.
        """
        waiting = {job.name for job in jobs}
        recipes = [one.recipe for one in self.trainings]
        lines = []
        if recipes:
            kinds = [
                ("task", [task_name(one.task) for one in recipes]),
                ("encoder", [one.encoder for one in recipes]),
                ("start", [one.init for one in recipes]),
                ("seed", [str(one.seed) for one in recipes]),
            ]
            of = ", ".join(_count_of(kind, dict.fromkeys(values)) for kind, values in kinds)
            there = sum(one.name not in waiting for one in self.trainings)
            lines.append(f"{_number(len(recipes), 'training')} ({of}), {there} of them there already")
        if self.dictionaries:
            seeds, there = len(self.dictionaries), sum(one.finished for one in self.dictionaries)
            centroids = f"{self.dictionaries[0].centroids:,} centroids"
            lines.append(f"k-means of {centroids} with {_number(seeds, 'seed')}, {there} of them there already")
        if self.evaluation:
            data = Counter((one.data, one.size) for one in self.encoders)
            total = sum(len(protocols_for(one, self.evaluation)) for one in self.encoders)
            missing = sum(job.kind == EVALUATION for job in jobs)
            on = ", ".join(f"{open_source(*one).name} of {one[1]} px" for one in data)
            encoders = _number(max(data.values()), "encoder")
            lines.append(
                f"{_number(total, 'evaluation')} of {encoders}, baselines included, on {on}; "
                f"{total - missing} of them there already"
            )
        return lines

    def forecast(self) -> str:
        """Returns one line that says how long the trainings that are missing take, by measuring their first steps."""
        missing = [one for one in self.trainings if not one.finished]
        return forecast_trainings(missing, self.runtime.resolved_device())

    def workload(self, jobs: list[Job]) -> str:
        """Returns one line that says how much is to be done."""
        names = {job.name for job in jobs}
        recipes = [one.recipe for one in self.trainings if one.name in names]
        steps = sorted({recipe.steps for recipe in recipes})
        parts = []
        if len(recipes) == 1:
            passes = steps[0] * recipes[0].task.batch / len(recipes[0].source().train)
            parts.append(f"1 training of {steps[0]:,} steps of {recipes[0].task.batch:,} images, {passes:,.3g} passes")
        elif recipes:
            span = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
            parts.append(f"{len(recipes)} trainings of {span} steps")
        if learned := sum(one.name in names for one in self.dictionaries):
            parts.append("k-means" if learned == 1 else f"k-means with {learned} seeds")
        if others := sum(job.kind != TRACKING for job in jobs) - len(recipes) - learned:
            parts.append(f"{others} jobs of evaluation")
        return f"to do: {', '.join(parts)}"

    def jobs(self) -> list[Job]:
        """Returns the jobs that are missing, pretrainings first."""
        device, group = self.runtime.resolved_device(), self.runtime.worker_range
        missing = [t for t in self.trainings if not t.finished]
        multi_worker = group.max > 1
        train = _train_with_group if multi_worker else worker.run_training
        extra = (device, group) if multi_worker else (device,)
        count = max(1, group.min)
        scale_up = max(1, group.max) / count
        found = [
            Job(
                t.name,
                train,
                (t, *extra),
                cpus=count,
                gpus=count if device == "cuda" else 0,
                scale_up=scale_up,
                starts_workers=multi_worker,
            )
            for t in missing
        ]
        gpus = 1 if device == "cuda" else 0
        found += [Job(one.name, learn, (one, device), gpus=gpus) for one in self.dictionaries if not one.finished]
        if self.evaluation:
            threads = decode_threads(self.runtime, self.encoders[0].source)
            planned = {job.name for job in found}
            found += evaluation_jobs(
                self.study, self.encoders, self.evaluation, self.runtime.tracking, device, planned, threads
            )
        return found


def _train_with_group(one: Training, device: str, group: WorkerRange) -> EncoderRecord | None:
    return run_worker_group(
        worker.run_training,
        one,
        workers=group,
        gpu=device == "cuda",
        name=f"{one.name}-{time.time_ns()}",
        logs=Study(one.study).logs / "ray",
        timeout=max(worker.FIRST_STEP_TIMEOUT_S, one.step_timeout) + 60,
    )


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _count_of(kind: str, values: Collection[str]) -> str:
    """Returns how many there are, with their names."""
    return f"{_number(len(values), kind)}: {' '.join(values)}"
