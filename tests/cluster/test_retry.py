"""What follows on a fault: decided from the faults alone."""

import pickle

import pytest

from cluster.retry import MAX_ATTEMPTS, Fault, JobFault, Preempted, decide, describe_error, fault_kind
from ssl_core.errors import DiskFull, Diverged, OutOfMemory, StorageError, UserError


def system(step: int | None = 0) -> Fault:
    return Fault("system", "WorkerCrashedError: gone", step)


def program(step: int | None, cause: str = "ValueError: wrong") -> Fault:
    return Fault("program", cause, step)


def test_what_is_hopeless_ends_at_once():
    decision = decide([Fault("final", "the loss is nan at step 20", 20)])
    assert not decision.retry and "the loss is nan" in decision.reason


def test_waits_double_from_a_second_to_a_minute():
    faults, waits = [], []
    while True:
        faults.append(system())
        if not (decision := decide(faults)).retry:
            break
        waits.append(decision.wait)
    assert waits == [1, 2, 4, 8, 16] and len(faults) == MAX_ATTEMPTS["system"]
    assert "6 times without progress" in decision.reason


def test_progress_begins_the_count_anew():
    """A machine lost every hundred steps, for ever: the run goes on."""
    faults = []
    for step in range(0, 10_000, 100):
        faults.append(system(step))
        assert decide(faults).retry
    for _ in range(MAX_ATTEMPTS["system"] - 2):
        faults.append(system(9_900))
        assert decide(faults).retry
    faults.append(system(9_900))
    assert not decide(faults).retry


def test_going_back_to_a_checkpoint_is_no_progress():
    """Each attempt reaches step 30 or less: the same six as if it reached none."""
    faults = [system(step) for step in (30, 20, 30, 10, 29)]
    assert decide(faults).retry
    assert not decide([*faults, system(30)]).retry


def test_the_same_error_at_the_same_step_ends_it_with_its_cause():
    assert decide([program(7)]).retry
    decision = decide([program(7), program(7)])
    assert not decision.retry and decision.reason == "the same error twice: ValueError: wrong (at step 7)"


def test_addresses_in_an_error_do_not_make_it_another():
    assert not decide([program(7, "E: at 0x7f01"), program(7, "E: at 0x7f22")]).retry
    assert not decide([program(None, "E: process 12"), program(None, "E: process 99")]).retry
    assert decide([program(7, "E: a"), program(7, "E: b")]).retry


def test_an_error_at_another_step_is_tried_again_a_few_times():
    faults = [program(30, "E: a")]
    for cause in "bcdefg":
        faults.append(program(20, f"E: {cause}"))
        if not decide(faults).retry:
            break
    assert len(faults) == MAX_ATTEMPTS["program"]


def test_a_machine_lost_between_two_same_errors_does_not_hide_them():
    assert not decide([program(7), system(7), program(7)]).retry


def test_kinds_are_counted_apart():
    """Five lost machines and two errors of its own at one step: neither has used up its patience."""
    faults = [system(0)] * 5 + [program(0, "E: a"), program(0, "E: b")]
    assert decide(faults).retry
    assert decide([*faults, Fault("preempted", "told to leave", 0)]).retry


def test_a_spot_machine_may_be_taken_away_often_but_not_for_ever():
    notice = Fault("preempted", "told to leave", 5)
    assert decide([notice] * 49).wait == 0 and decide([notice] * 49).retry
    assert not decide([notice] * 50).retry


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UserError("x"), "final"),
        (Diverged("x"), "final"),
        (OutOfMemory("x"), "program"),
        (DiskFull("x"), "final"),
        (StorageError("x"), "system"),
        (Preempted("x"), "preempted"),
        (ValueError("x"), "program"),
    ],
)
def test_exceptions_say_what_kind_they_are(error, kind):
    assert fault_kind(error) == kind
    assert describe_error(error) == ("x" if kind in ("final", "preempted") else f"{type(error).__name__}: x")


def test_a_failure_travels_between_processes():
    fault = Fault("system", "gone", 3, "text", "node")
    assert pickle.loads(pickle.dumps(JobFault(fault))).fault == fault
