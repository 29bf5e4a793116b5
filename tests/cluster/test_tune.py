"""ASHA on Ray Tune: which trials end early, and that groups and attempts do not mix."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.heartbeat import current
from cluster.retry import Preempted
from cluster.session import session
from cluster.tune import Trial, TrialEnd, tune
from ssl_core.errors import TilespinError

pytestmark = pytest.mark.ray


def falling(loss: float, steps: int) -> Iterator[dict]:
    """A loss that stays what it is, told at every step."""
    for step in range(1, steps + 1):
        yield {"step": step, "loss": loss}


def endless(begun: str, saved: str) -> Iterator[dict]:
    """Has one row, works until it is told to leave, and then takes longer to save than Tune lets a trial live that it
    stops."""
    yield {"step": 1, "loss": 1.0}
    Path(begun).touch()
    while not current().stop_requested:
        time.sleep(0.1)
    time.sleep(17)
    Path(saved).touch()
    raise Preempted("told to leave")


def final(loss: float, steps: int) -> Iterator[dict]:
    """Ends in an error that trying again would not help."""

    class Hopeless(TilespinError):
        fault = "final"

    yield {"step": 1, "loss": loss}
    raise Hopeless("the loss is nan: try a lower --lr")


def cut_off(marker: str, steps: int) -> Iterator[dict]:
    """Its process dies the first time, and then goes on behind what it had."""
    first = not Path(marker).exists()
    for step in range(1, steps + 1):
        if first and step == 3:
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield {"step": step, "loss": 0.0}


@pytest.fixture(scope="module")
def ends(tmp_path_factory) -> dict[str, list[TrialEnd]]:
    """One sweep on one core, so that trials come one after the other, in this order."""
    marker = str(tmp_path_factory.mktemp("sweep") / "died")
    trials = [
        Trial("good", "a", falling, (1.0, 9), 9),
        Trial("bad", "a", falling, (2.0, 9), 9),
        Trial("better", "a", falling, (0.5, 9), 9),
        Trial("other", "b", falling, (100.0, 9), 9),
        Trial("hopeless", "b", final, (0.1, 9), 9),
        Trial("killed", "c", cut_off, (marker, 9), 9),
    ]
    told: dict[str, list[TrialEnd]] = {}
    with session(1):
        tune(trials, grace=1 / 3, reduction=3, gpus=0, on_end=lambda end: told.setdefault(end.name, []).append(end))
        begun, saved = Path(marker + "-begun"), Path(marker + "-saved")
        one = Trial("endless", "a", endless, (str(begun), str(saved)), 10**6)
        later = Trial("later", "a", falling, (1.0, 9), 9)
        told["left"] = []
        tune([one, later], grace=1, reduction=3, gpus=0, on_end=told["left"].append, stop_requested=begun.exists)
        told["saved"] = [saved.exists()]
    return told


def test_a_request_to_stop_lets_every_trial_save(ends):
    """However long it takes; none of them counts as one that has ended."""
    assert ends["saved"] == [True] and ends["left"] == []


def test_who_falls_behind_ends_at_the_first_rung(ends):
    assert {name: [end.step for end in of] for name, of in ends.items() if name not in ("saved", "left")} == {
        "good": [9],
        "bad": [3],
        "better": [9],
        "other": [9],
        "hopeless": [1],
        "killed": [9],
    }


def test_losses_of_other_groups_do_not_count(ends):
    assert ends["other"] == [TrialEnd("other", 9, 100.0)]


def test_an_error_that_is_final_is_told_once(ends):
    (end,) = ends["hopeless"]
    assert end.error == "the loss is nan: try a lower --lr" and end.loss == 0.1


def test_a_killed_process_begins_again(ends):
    assert [end.error for end in ends["killed"]] == [None]
