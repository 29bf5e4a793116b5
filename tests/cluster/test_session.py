"""A cluster of our own on a machine that is too busy for Ray's patience."""

import subprocess
import sys

import pytest

from cluster.head import ClusterError
from cluster.session import MAX_STARTS, session

LATE = "The current node timed out during startup. This could happen because some of the raylet failed to startup."


@pytest.fixture
def late(monkeypatch):
    """Ray's start fails so often, and leaves a process each time; -> those processes."""
    import ray

    left, start = [], ray.init

    def fail(times: int, said: str = LATE) -> list[subprocess.Popen]:
        def init(**how):
            if len(left) < times:
                command = [sys.executable, "-c", "print(flush=True); import time; time.sleep(600)", "/ray/"]
                left.append(subprocess.Popen(command, stdout=subprocess.PIPE))
                left[-1].stdout.read(1)  # until it runs: a process that is just being started has no command line
                raise Exception(said)
            return start(**how)

        monkeypatch.setattr(ray, "init", init)
        return left

    yield fail
    for process in left:
        process.kill()
        process.communicate()


@pytest.mark.ray
def test_a_start_that_comes_too_late_is_tried_again(late):
    """Then the cluster works, nothing of the first is left, and one line says why it took so long."""
    import ray

    left, lines = late(1), []
    with session(cpus=1, notify=lines.append) as resources:
        assert resources["CPU"] == 1 and ray.get(ray.remote(lambda: 7).remote()) == 7
    assert len(lines) == 1 and "started again" in lines[0] and left[0].wait(60) == -9


@pytest.mark.parametrize(("said", "times"), [(LATE, MAX_STARTS), ("no space left on device", 1)])
def test_a_start_that_fails_again_or_otherwise_is_an_error(late, said, times):
    left, lines = late(MAX_STARTS, said), []
    failed = pytest.raises(ClusterError, match=r"no Ray cluster answers at this machine: .*(startup|device)")
    with failed, session(cpus=1, notify=lines.append):
        raise AssertionError("it did not start")
    assert len(left) == times and len(lines) == times - 1
