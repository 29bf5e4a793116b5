"""Signals, in processes that import nothing heavy: what the first and the second do, and when there is nothing to
save."""

import signal
import subprocess
import sys

import pytest
from support.command import ROOT, environment

from jobs import cli

WORK = """
import sys, time
from jobs.execution import signals
signals.SAME = {same}
with signals.on_signals() as received:
    print("works", flush=True)
    while not received():
        time.sleep(0.01)
    print("leaves", flush=True)
    sys.stdin.readline()  # saves
print(received(), flush=True)
"""
# A job that has taken no step, as evaluations take none
EVALUATES = """
import time
from cluster.heartbeat import Heartbeat, sending_heartbeats
from jobs.execution import signals
with signals.on_signals(), sending_heartbeats(Heartbeat("probe")):
    print("works", flush=True)
    while True:
        time.sleep(0.01)
"""
# A verb whose modules never end to load
LOADS = """
import jobs.cli, sys
jobs.cli.QUIET_SECONDS = 0
jobs.cli.VERBS["compare"] = ("endless", "")
sys.argv = ["tilespin", "compare"]
jobs.cli.main()
"""


def started(code: str, first: str, **how) -> subprocess.Popen:
    """As soon as it has said `first`. What runs in a shell's background ignores interrupts, and so would this."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **{"env": environment(), "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)} | how,
    )
    assert first in process.stdout.readline()
    return process


def rest(process: subprocess.Popen) -> str:
    """What it says after it has saved, for which it is given time now.

    Not by `communicate`, which would lose what came together with the last line that was read.
    """
    process.stdin.close()
    said = process.stdout.read()
    process.wait(900)
    return said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_first_signal_asks_to_save(number):
    """Also if it is sent twice, as `timeout` and closing terminals do."""
    process = started(WORK.format(same=1000), "works")
    process.send_signal(number)
    assert "saving" in process.stdout.readline()
    process.send_signal(number)
    assert rest(process).split() == ["leaves", str(int(number))] and process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.slow
def test_the_second_ends_at_once(number):
    process = started(WORK.format(same=0), "works")
    process.send_signal(number)
    assert "saving" in process.stdout.readline() and "leaves" in process.stdout.readline()
    process.send_signal(number)
    assert process.stdout.read() == "" and process.wait() == 128 + number, "it does not wait for what it saves"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.slow
def test_what_has_nothing_to_save_ends_at_once(number):
    process = started(EVALUATES, "works")
    process.send_signal(number)
    assert rest(process) == "tilespin: stopping; the same command continues where it stopped\n"
    assert process.returncode == 128 + number


def test_a_session_that_ends_after_its_terminal_is_not_a_second_request():
    process = started(WORK.format(same=0), "works")
    process.send_signal(signal.SIGHUP)
    assert "saving" in process.stdout.readline() and "leaves" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert rest(process).split() == [str(int(signal.SIGHUP))] and process.returncode == 0


def test_what_is_ignored_stays_ignored():
    """As SIGHUP under nohup."""
    ignoring = dict(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process = started(WORK.format(same=1000), "works", **ignoring)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert rest(process).split()[-2:] == ["leaves", str(int(signal.SIGTERM))]


def test_while_modules_load_a_line_says_so_and_an_interrupt_ends_it(tmp_path):
    (tmp_path / "endless.py").write_text("import time\nwhile True:\n    time.sleep(0.01)\n")
    process = started(LOADS, "tilespin: loading modules", env=environment() | {"PYTHONPATH": str(tmp_path)})
    process.send_signal(signal.SIGINT)
    assert rest(process) == "tilespin: interrupted\n" and process.returncode == 130


def test_a_folder_that_is_gone_is_named(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    line = 'cd "$1" && rmdir "$1" && "$2" -c "import jobs.cli, sys; sys.argv[1:] = [\'compare\']; jobs.cli.main()"'
    env = environment() | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", line, "bash", gone, sys.executable], env=env, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "the current folder does not exist any more" in done.stderr


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("data", "interrupted"),
        ("export", "interrupted"),
        ("pack", "interrupted; the same command continues where it stopped"),
    ],
)
def test_an_interrupted_command_says_whether_it_continues(verb, said, monkeypatch, capsys):
    def interrupted(_) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_command", interrupted)
    monkeypatch.setattr(sys, "argv", ["tilespin", verb])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 130 and capsys.readouterr().err == f"tilespin: {said}\n"
