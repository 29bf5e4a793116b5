"""Runs a graph of jobs side by side on Ray, each until it has ended once, whatever dies meanwhile."""

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import cluster.silent as silent
from cluster.heartbeat import Heartbeat, ask_last_beats, sending_heartbeats
from cluster.job import Job, Outcome, Retrying, check_jobs, run_attempt
from cluster.retry import Fault, decide

POLL_S = 1.0  # seconds between two looks at running jobs
READY_S = 5.0  # seconds until a job is asked again whether it can begin before those that it needs have ended
# On a machine that Ray takes for dead: most often Ray knows more of an attempt's end, and says it first
DEAD_NODE_GRACE_S = 5.0
# Until an attempt's work is given to another, whatever came of it: it has ended itself by then (DRIVER_TIMEOUT_S)
ABANDON_S = 120.0
RESOURCE_TIMEOUT_S = 900.0  # that a job waits for a cluster large enough for it, when nothing else runs
STORE_SHARE = 0.7  # of the cluster's object store that results kept for later jobs may fill


def run_on_ray(
    jobs: list[Job],
    stop_requested: Callable[[], bool] = lambda: False,
    on_metrics: Callable[[str, dict[str, Any]], object] = lambda name, metrics: None,
) -> Iterator[Outcome | Retrying]:
    """Runs jobs as Ray tasks in the open session, as many at once as the cluster has resources for.

    Of the jobs that can start, the first in the list does: Ray on its own promises no order, and a long job that
    starts last holds up everything. Results travel through Ray's object store, as far as it has space. A job that
    ended in a fault is tried again as cluster/retry.py decides, on another machine if there is one.

    Args:
        jobs: The jobs, each after those that it needs.
        stop_requested: Is asked again and again. Once it returns True, jobs that have completed a step are asked to
            save and stop, others are ended, and those that have not begun do not.
        on_metrics: Is called with a job's name and the last metrics of its heartbeats, again and again while it runs.

    Yields:
        The outcome of each job as it ends, and a Retrying for each attempt that is to be repeated.

    Raises:
        ValueError: If the list is not as `check_jobs` wants it.
    """
    check_jobs(jobs)
    return _Scheduler(jobs, stop_requested, on_metrics).outcomes()


class _Scheduler:
    """Keeps what has ended, what runs, and what waits."""

    def __init__(
        self,
        jobs: list[Job],
        stop_requested: Callable[[], bool],
        on_metrics: Callable[[str, dict[str, Any]], object],
    ):
        import ray

        from cluster.resources import ClusterResources, start_heartbeat_registry
        from cluster.silent import SilentProcesses

        self.jobs, self.stop_requested, self.on_metrics = {job.name: job for job in jobs}, stop_requested, on_metrics
        self.waiting = list(jobs)
        self.running: dict[Any, tuple[Job, Any]] = {}  # by the object that says how the attempt ended
        self.results: dict[str, Any] = {}  # of jobs that ended and are still needed
        self.failed: dict[str, Outcome] = {}
        self.succeeded: set[str] = set()  # jobs that succeeded once
        self.faults: dict[str, list[Fault]] = {}
        self.not_before: dict[str, float] = {}  # when a job may be tried again
        self.asked: dict[str, float] = {}  # when a job was asked whether it can begin early
        self.idle = time.monotonic()  # since when nothing runs
        self.registry, self.resources, self.ray = start_heartbeat_registry(), ClusterResources(), ray
        self.silent = SilentProcesses(self.resources)

    def outcomes(self) -> Iterator[Outcome | Retrying]:
        while self.waiting or self.running:
            stopping = self.stop_requested()
            if stopping and not self.running:
                return
            if not stopping:
                yield from self._start_ready_jobs()
            if not self.running:
                time.sleep(POLL_S / 4)
                continue
            ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=POLL_S)
            for ending in ready:
                yield from self._finish(ending)
            yield from self._poll(stopping)

    def _start_ready_jobs(self) -> Iterator[Outcome]:
        """Starts what can start, and yields outcomes of jobs that never will, because what they need has failed."""
        kept: list[Job] = []  # places of jobs that begin again in a moment: who comes later does not take them
        for job in list(self.waiting):
            failed = next((self.failed[need] for need in job.needs if need in self.failed), None)
            complete = all(need in self.results or need in self.failed for need in job.needs)
            early = job.ready() if failed else not complete and self._is_ready(job)
            if failed and job.needs_success and not early:
                self.waiting.remove(job)
                self.failed[job.name] = Outcome(job.name, None, failed.error, failed.failed_need or failed.name)
                yield self.failed[job.name]
            elif not complete and not early:
                continue
            elif time.monotonic() < self.not_before.get(job.name, 0):
                kept.append(job)
            elif self._has_room_for(job, kept):
                self.waiting.remove(job)
                self._submit_task(job)
        if self.waiting and not self.running:
            yield from self._fail_without_room()

    def _is_ready(self, job: Job) -> bool:
        """Asks whether a job can begin before those that it needs have ended; a storage is not asked at every look."""
        now = time.monotonic()
        if now < self.asked.get(job.name, 0) + READY_S:
            return False
        self.asked[job.name] = now
        return job.ready()

    def _has_room_for(self, job: Job, kept: list[Job]) -> bool:
        running = [*kept, *(one for one, _ in self.running.values())]
        kept_bytes = sum(one.result_bytes for one in (*running, *(self.jobs[name] for name in self.results)))
        limit = STORE_SHARE * self.resources.object_store()
        if job.result_bytes and kept_bytes and kept_bytes + job.result_bytes > limit:
            return False
        # the workers of one that stretches leave no room: another would wait for it inside, where attempts are counted
        taken = [(one.cpus * one.scale_up, one.gpus * one.scale_up) for one in running]
        return self.resources.fits(job.cpus, job.gpus, taken)

    def _fail_without_room(self) -> Iterator[Outcome]:
        """Yields the outcome of each job that has waited too long for resources that even the idle cluster does not
        have."""
        for job in list(self.waiting):
            if time.monotonic() - self.idle > RESOURCE_TIMEOUT_S and not self.resources.fits(job.cpus, job.gpus, []):
                self.waiting.remove(job)
                why = f"asks for {job.cpus:g} CPUs and {job.gpus:g} GPUs, the cluster has {self.resources}"
                self.failed[job.name] = Outcome(job.name, None, why, reason=why)
                yield self.failed[job.name]

    def _submit_task(self, job: Job) -> None:
        faults = self.faults.get(job.name, [])
        avoided = faults[-1].node if faults and faults[-1].kind != "preempted" else ""
        # workers whose controller was lost go on in their room, which nobody else frees
        if (group := self.ray.get(self.registry.begin_attempt.remote(job.name))) is not None:
            self.ray.util.remove_placement_group(group)
        task = self.ray.remote(_run_job).options(
            name=job.name,
            num_cpus=0 if job.starts_workers else job.cpus,
            num_gpus=0 if job.starts_workers else job.gpus,
            num_returns=2,
            max_retries=0,
            **self.resources.avoid_node(avoided),
        )
        identity = (self.registry, job.name, tuple(map(str, faults)))
        # unpickled there when signs of life have begun: it may import for long
        work = self.ray.cloudpickle.dumps((job.call, job.args))
        ending, result = task.remote(identity, work, job.fetch, *(self.results.get(need) for need in job.needs))
        self.running[ending] = job, result

    def _finish(self, ending: Any, lost: str = "") -> Iterator[Outcome | Retrying]:
        """Handles the end of the attempt behind `ending`, whose job may be tried again. `lost` says why no result
        can come."""
        job, result = self.running.pop(ending)
        killed = self.silent.why_killed(job.name, 0 if lost else silent.ANSWER_S)
        self.idle = time.monotonic()
        try:
            if lost:
                self.ray.cancel(ending, force=True)
                raise ConnectionError(lost)
            value, fault = self.ray.get(ending)
        except Exception as error:
            value, fault = None, self._fault_from_ray_error(job, error)
            self._recompute_lost(job.needs)
        if fault is None:
            # what came here is lost with this machine only
            self.results[job.name] = self.ray.put(value) if job.fetch else result
            if job.name not in self.succeeded:  # it may be done a second time, see _recompute_lost
                self.succeeded.add(job.name)
                yield Outcome(job.name, value)
        elif (lost or fault.kind == "preempted") and self.stop_requested():
            pass
        else:
            if lost or killed:
                fault = replace(fault, cause=lost or killed)
            faults = self.faults.setdefault(job.name, [])
            faults.append(fault)
            decision = decide(faults)
            if decision.retry:
                self.not_before[job.name] = time.monotonic() + decision.wait
                self.waiting.append(job)
                self.waiting.sort(key=list(self.jobs.values()).index)
                yield Retrying(job.name, fault, decision, len(faults) + 1)
            else:
                outcome = Outcome(job.name, None, fault.text or fault.cause, reason=decision.reason)
                self.failed[job.name] = outcome
                yield outcome
        self._release_results()

    def _release_results(self) -> None:
        """Drops results that no job needs any more, not even to compute another result again."""
        wanted: set[str] = set()
        left = [*self.waiting, *(job for job, _ in self.running.values())]
        while left:
            needs = set(left.pop().needs) - wanted
            wanted |= needs
            left += [self.jobs[name] for name in needs]
        self.results = {name: result for name, result in self.results.items() if name in wanted}

    def _fault_from_ray_error(self, job: Job, error: Exception) -> Fault:
        """Returns the fault of an attempt that only Ray could report."""
        beats = [beat for beat, _ in ask_last_beats(self.registry).get(job.name, {}).values()]
        step = max((beat.step for beat in beats if beat.step is not None), default=None)
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
        message = lines[-1] if isinstance(error, self.ray.exceptions.RayTaskError) else lines[0]
        message = message.partition(". ")[0]  # some of Ray's go on with advice
        cause = f"{type(error).__name__}: {message}"
        return Fault("system", cause, step, str(error), beats[0].node if beats else "")

    def _recompute_lost(self, needs: tuple[str, ...]) -> None:
        """Schedules those of the results `needs` again that no machine holds any more."""
        for name in needs:
            kept_there = name in self.results and not self.jobs[name].fetch
            if kept_there and not self.resources.is_available(self.results[name]):
                del self.results[name]
                self.waiting.insert(0, self.jobs[name])

    def _poll(self, stopping: bool) -> Iterator[Outcome | Retrying]:
        """Checks on the jobs that run, and yields the outcomes of attempts that are given up.

        It kills processes that are frozen, asks jobs to stop whose machine is about to go (or all of them), and
        gives up attempts whose machine is lost: Ray says so after minutes only, if its connections were not closed.
        """
        last_beats = ask_last_beats(self.registry)
        draining, alive = self.resources.draining(), self.resources.alive()
        for ending, (job, _) in list(self.running.items()):
            workers = last_beats.get(job.name, {})
            if stopping or any(beat.node in draining for beat, _ in workers.values()):
                self.registry.request_stop.remote([job.name])
            for beat, age in workers.values():
                if beat.metrics is not None:
                    self.on_metrics(job.name, beat.metrics)
                if age > silent.SILENT_S and beat.node in alive and not beat.ended:
                    self.silent.check(job.name, beat, age)
            if stopping and all(beat.step is None for beat, _ in workers.values()):
                yield from self._finish(ending, "asked to stop, with nothing to save")
            elif 0 in workers and not workers[0][0].ended:
                beat, age = workers[0]
                if beat.node not in alive and age > DEAD_NODE_GRACE_S:
                    yield from self._finish(ending, "its machine is gone")
                elif age > ABANDON_S and not self.silent.is_alive(beat):
                    yield from self._finish(ending, f"no sign of life for {age:.0f} s")


def _run_job(identity: tuple, work: bytes, fetch: bool, *needed) -> tuple[tuple[Any, Fault | None], Any]:
    """Runs a job in a Ray task; returns what the driver gets, and the result for later jobs.

    They are two objects, so that a large result need not travel to the driver.
    """
    registry, name, faults = identity
    with sending_heartbeats(Heartbeat(name, registry, faults)) as heartbeat:
        value, fault = run_attempt(_call_pickled, (work, *needed), heartbeat)
        if fault:
            import ray

            gc.collect()  # what failed lies in cycles, and holds actors, such as Ray Train's controller with its memory
            fault = replace(fault, node=fault.node or ray.get_runtime_context().get_node_id())
    return ((value if fetch else None), fault), value


def _call_pickled(work: bytes, *needed) -> Any:
    from ray import cloudpickle

    call, args = cloudpickle.loads(work)
    return call(*args, *needed)
