"""A graph of jobs run side by side on Ray, each until it ended once, whatever dies meanwhile."""

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import cluster.silent as silent
from cluster.heartbeat import Pulse, beating
from cluster.job import Again, Job, Outcome, attempt, check
from cluster.retry import Fault, decide

LOOK = 1.0  # seconds between two looks at running jobs
BURIAL = 5.0  # on a machine that Ray takes for dead: most often Ray knows more of an attempt's end, and says it first
GONE = 120.0  # until an attempt's work is given to another, whatever came of it: it has ended itself by then (ALONE)
ROOM_SECONDS = 900.0  # that a job waits for a cluster large enough for it, when nothing else runs
STORE_SHARE = 0.7  # of the cluster's object store that results kept for later jobs may fill


def run_on_ray(jobs: list[Job], told_to_leave: Callable[[], bool] = lambda: False) -> Iterator[Outcome | Again]:
    """As Ray tasks, as many at once as the cluster has room for; outcomes come as the jobs end.

    Needs an open session. Of the jobs that can start, the first in the list does: Ray on its own promises no
    order, and a long job that starts last holds up everything. Results travel through Ray's object store, as far as
    it has room. A job that ended in a fault is tried again as cluster/retry.py decides, on another machine if there
    is one. Once `told_to_leave`, jobs that have taken a step are told to save and leave, others are ended, and those
    that have not begun do not.
    """
    check(jobs)
    return _Running(jobs, told_to_leave).outcomes()


class _Running:
    """What has ended, what runs, and what waits."""

    def __init__(self, jobs: list[Job], told_to_leave: Callable[[], bool]):
        import ray

        from cluster.resources import Room, board_here
        from cluster.silent import Silent

        self.jobs, self.told_to_leave = {job.name: job for job in jobs}, told_to_leave
        self.waiting = list(jobs)
        self.running: dict[Any, tuple[Job, Any]] = {}  # by the object that says how the attempt ended
        self.results: dict[str, Any] = {}  # of jobs that ended and are still needed
        self.failed: dict[str, Outcome] = {}
        self.told: set[str] = set()  # jobs that succeeded once
        self.faults: dict[str, list[Fault]] = {}
        self.not_before: dict[str, float] = {}  # when a job may be tried again
        self.idle = time.monotonic()  # since when nothing runs
        self.board, self.room, self.ray = board_here(), Room(), ray
        self.silent = Silent(self.room)

    def outcomes(self) -> Iterator[Outcome | Again]:
        while self.waiting or self.running:
            leaving = self.told_to_leave()
            if leaving and not self.running:
                return
            if not leaving:
                yield from self._start()
            if not self.running:
                time.sleep(LOOK / 4)
                continue
            ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=LOOK)
            for ending in ready:
                yield from self._end(ending)
            yield from self._look(leaving)

    def _start(self) -> Iterator[Outcome]:
        """Starts what can start; tells of what never will, because what it needs has failed."""
        kept: list[Job] = []  # places of jobs that begin again in a moment: who comes later does not take them
        for job in list(self.waiting):
            broken = next((self.failed[need] for need in job.needs if need in self.failed), None)
            if broken:
                self.waiting.remove(job)
                self.failed[job.name] = Outcome(job.name, None, broken.error, broken.because or broken.name)
                yield self.failed[job.name]
            elif not all(need in self.results for need in job.needs):
                continue
            elif time.monotonic() < self.not_before.get(job.name, 0):
                kept.append(job)
            elif self._may_start(job, kept):
                self.waiting.remove(job)
                self._submit(job)
        if self.waiting and not self.running:
            yield from self._give_up()

    def _may_start(self, job: Job, kept: list[Job]) -> bool:
        running = [*kept, *(one for one, _ in self.running.values())]
        held = sum(self.jobs[name].holds for name in self.results) + sum(one.holds for one in running)
        if job.holds and held and held + job.holds > STORE_SHARE * self.room.object_store():
            return False
        # the workers of one that stretches leave no room: another would wait for it inside, where attempts are counted
        taken = [(one.cpus * one.stretch, one.gpus * one.stretch) for one in running]
        return self.room.fits(job.cpus, job.gpus, taken)

    def _give_up(self) -> Iterator[Outcome]:
        """Tells of a job that the cluster has had no room for, idle as it is, for too long."""
        for job in list(self.waiting):
            if time.monotonic() - self.idle > ROOM_SECONDS and not self.room.fits(job.cpus, job.gpus, []):
                self.waiting.remove(job)
                why = f"asks for {job.cpus:g} CPUs and {job.gpus:g} GPUs, the cluster has {self.room}"
                self.failed[job.name] = Outcome(job.name, None, why, why=why)
                yield self.failed[job.name]

    def _submit(self, job: Job) -> None:
        faults = self.faults.get(job.name, [])
        avoided = faults[-1].node if faults and faults[-1].kind != "preempted" else ""
        # workers whose controller was lost go on in their room, which nobody else frees
        if (group := self.ray.get(self.board.begin.remote(job.name))) is not None:
            self.ray.util.remove_placement_group(group)
        task = self.ray.remote(_work).options(
            name=job.name,
            num_cpus=0 if job.delegates else job.cpus,
            num_gpus=0 if job.delegates else job.gpus,
            num_returns=2,
            max_retries=0,
            **self.room.anywhere_but(avoided),
        )
        told = (self.board, job.name, tuple(map(str, faults)))
        # unpickled there when signs of life have begun: it may import for long
        work = self.ray.cloudpickle.dumps((job.call, job.args))
        ending, result = task.remote(told, work, job.fetch, *(self.results[need] for need in job.needs))
        self.running[ending] = job, result

    def _end(self, ending: Any, gone: str = "") -> Iterator[Outcome | Again]:
        """How the attempt behind `ending` went; its job may wait for another. `gone` says why nobody can tell."""
        job, result = self.running.pop(ending)
        killed = self.silent.killed(job.name, 0 if gone else silent.ANSWER)
        self.idle = time.monotonic()
        try:
            if gone:
                self.ray.cancel(ending, force=True)
                raise ConnectionError(gone)
            value, fault = self.ray.get(ending)
        except Exception as error:
            value, fault = None, self._system_fault(job, error)
            self._make_again(job.needs)
        if fault is None:
            # what came here is lost with this machine only
            self.results[job.name] = self.ray.put(value) if job.fetch else result
            if job.name not in self.told:  # it may be done a second time, see _make_again
                self.told.add(job.name)
                yield Outcome(job.name, value)
        elif (gone or fault.kind == "preempted") and self.told_to_leave():
            pass
        else:
            if gone or killed:
                fault = replace(fault, cause=gone or killed)
            faults = self.faults.setdefault(job.name, [])
            faults.append(fault)
            decision = decide(faults)
            if decision.again:
                self.not_before[job.name] = time.monotonic() + decision.wait
                self.waiting.append(job)
                self.waiting.sort(key=list(self.jobs.values()).index)
                yield Again(job.name, fault, decision, len(faults) + 1)
            else:
                outcome = Outcome(job.name, None, fault.text or fault.cause, why=decision.why)
                self.failed[job.name] = outcome
                yield outcome
        self._forget()

    def _forget(self) -> None:
        """Lets go of results that nobody needs any more, not even to make another one again."""
        wanted: set[str] = set()
        left = [*self.waiting, *(job for job, _ in self.running.values())]
        while left:
            needs = set(left.pop().needs) - wanted
            wanted |= needs
            left += [self.jobs[name] for name in needs]
        self.results = {name: result for name, result in self.results.items() if name in wanted}

    def _system_fault(self, job: Job, error: Exception) -> Fault:
        """The fault of an attempt of which only Ray could tell."""
        signs = [sign for sign, _ in self.ray.get(self.board.heard.remote()).get(job.name, {}).values()]
        step = max((sign.step for sign in signs if sign.step is not None), default=None)
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
        said = lines[-1] if isinstance(error, self.ray.exceptions.RayTaskError) else lines[0]
        said = said.partition(". ")[0]  # some of Ray's go on with advice
        cause = f"{type(error).__name__}: {said}"
        return Fault("system", cause, step, str(error), signs[0].node if signs else "")

    def _make_again(self, needs: tuple[str, ...]) -> None:
        """Has those results computed anew that no machine holds any more."""
        for name in needs:
            if name in self.results and not self.jobs[name].fetch and not self.room.is_held(self.results[name]):
                del self.results[name]
                self.waiting.insert(0, self.jobs[name])

    def _look(self, leaving: bool) -> Iterator[Outcome | Again]:
        """Kills processes that are frozen; tells jobs to leave whose machine is about to go, or all of them; gives up
        attempts whose machine is gone: Ray says so after minutes only, if its connections were not closed."""
        heard, going, alive = self.ray.get(self.board.heard.remote()), self.room.draining(), self.room.alive()
        for ending, (job, _) in list(self.running.items()):
            workers = heard.get(job.name, {})
            if leaving or any(sign.node in going for sign, _ in workers.values()):
                self.board.leave.remote([job.name])
            for sign, age in workers.values():
                if age > silent.SILENT and sign.node in alive and not sign.ended:
                    self.silent.look(job.name, sign, age)
            if leaving and all(sign.step is None for sign, _ in workers.values()):
                yield from self._end(ending, "told to leave, with nothing to save")
            elif 0 in workers and not workers[0][0].ended:
                sign, age = workers[0]
                if sign.node not in alive and age > BURIAL:
                    yield from self._end(ending, "its machine is gone")
                elif age > GONE and not self.silent.at_work(sign):
                    yield from self._end(ending, f"no sign of life for {age:.0f} s")


def _work(told: tuple, work: bytes, fetch: bool, *needed) -> tuple[tuple[Any, Fault | None], Any]:
    """-> (what the driver gets, what later jobs get): a large result need not travel to the driver."""
    board, name, faults = told
    with beating(Pulse(name, board, faults)) as pulse:
        value, fault = attempt(_unpickled, (work, *needed), pulse)
        if fault:
            import ray

            gc.collect()  # what failed lies in cycles, and holds actors, such as Ray Train's controller with its memory
            fault = replace(fault, node=fault.node or ray.get_runtime_context().get_node_id())
    return ((value if fetch else None), fault), value


def _unpickled(work: bytes, *needed) -> Any:
    import ray

    call, args = ray.cloudpickle.loads(work)
    return call(*args, *needed)
