"""How many workers an elastic group has: what there is room for when it starts, and more once there is more room.

Ray Train resizes groups too, but from a list of machines that is up to 20 s old. It goes on for three minutes to count
what a lost controller had reserved, does not see what other programs use, and ends a group before the larger one has
its room. So it is asked for groups of one size only, and the size is decided here.
"""

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from cluster.heartbeat import Pulse
from cluster.resources import each_has

SETTLE = 15.0  # seconds that a group waits for room that may be a dead machine's, until a smaller one is tried
LOOK = 1.0  # seconds between two looks whether the group has ended meanwhile
# Seconds that a group works before it looks for room for more workers, twice as long after each start in vain
GROW = 30.0
START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"


def size(least: int, most: int, machines: Iterable[float]) -> int:
    """How many workers fit `machines`, each of which has so many CPUs or GPUs: at least `least`, at most `most`."""
    return max(least, min(most, sum(int(count) for count in machines)))


@contextmanager
def start_within(seconds: float) -> Iterator[None]:
    """Ray Train gives a group that starts in the block up as soon as it waited `seconds` for its room."""
    before = os.environ.get(START_TIMEOUT)
    os.environ[START_TIMEOUT] = f"{seconds:g}"
    try:
        yield
    finally:
        if before is None:
            del os.environ[START_TIMEOUT]
        else:
            os.environ[START_TIMEOUT] = before


class Growth:
    """Looks for room for up to `more` workers, one `kind` ("CPU" or "GPU") each, when the group of the job of `pulse`
    has worked for `after` seconds in the block; tells the group to leave, once, if there is any, and `found` says for
    how many more. Without a driver elsewhere it does nothing.

    There is room where a task that needs it runs: a machine that counts as alive may be dead, and one that an
    autoscaler is to start comes only if something waits for it. Such tasks end with this process, as nothing else
    that Ray reserves does.
    """

    def __init__(self, more: int, kind: str, pulse: Pulse, after: float):
        self.more, self.kind, self.pulse = more if pulse.board is not None else 0, kind, pulse
        self.after, self.found = after, 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True, name="growth")

    def __enter__(self) -> "Growth":
        if self.more:
            self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.ended.set()
        if self.more:
            self.thread.join()
            self.pulse.board.resize.remote(self.pulse.job)

    def _look(self) -> None:
        import ray

        board, job = self.pulse.board, self.pulse.job
        room = ray.remote(_there).options(
            name="room for a worker",
            num_cpus=float(self.kind == "CPU"),
            num_gpus=float(self.kind == "GPU"),
            max_retries=0,
        )
        while not ray.get(board.has_workers.remote(job)):  # it may still wait for its own room
            if self.ended.wait(LOOK):
                return
        while not self.ended.wait(self.after):
            asked, ready = [room.remote() for _ in range(self.more)], []
            while not (ready or self.ended.is_set()):
                ready, _ = ray.wait(asked, timeout=LOOK)
            for task in asked:
                ray.cancel(task)
            with contextlib.suppress(ray.exceptions.RayError):  # the machine may be gone again
                if ready and ray.get(ready[0]):
                    self.found = size(1, self.more, each_has(self.kind, free=True))
                    board.outgrow.remote(job)
                    return


def _there() -> bool:
    return True
