"""Standard streams that are closed, full, or that nobody reads any more: what is done goes on, and no traceback."""

import os
import subprocess
import sys

import pytest
from support.command import ROOT, environment

from jobs.cli import usage

HELP = [sys.executable, "-m", "jobs.cli", "--help"]
# says more than a pipe holds, to both streams and by a process that it starts, and then finishes its work
WORK = """
import os, pathlib, subprocess, sys
from jobs import streams
streams.make_durable()
for stream in (sys.stdout, sys.stderr):
    for _ in range(2000):
        print("a line that nobody reads " * 4, file=stream)
subprocess.run(["echo", "one more"], check=True)
pathlib.Path(sys.argv[1]).write_text(f"{streams.write_error()}")
"""


def shell(line: str, *arguments, **variables) -> subprocess.CompletedProcess:
    env = environment() | variables
    return subprocess.run(["bash", "-c", line, "bash", *arguments], cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("ends", ['"$@" | head -1', '"$@" 2>&1 | true', '"$@" >&-', '"$@" >&- 2>&-', '"$@" <&-'])
def test_help_ends_quietly(ends, unbuffered):
    done = shell(f"{ends}; exit ${{PIPESTATUS[0]}}", *HELP, PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 0 and not done.stderr and usage().startswith(done.stdout.strip())


def test_results_that_a_full_disk_swallows_are_no_success():
    done = shell('"$@" > /dev/full', *HELP)
    assert done.returncode == 1 and done.stderr == "tilespin: what was printed is lost: No space left on device\n"


@pytest.mark.parametrize(
    ("ends", "lost"),
    [
        ('"$@" | true', "None"),
        ('"$@" 2>&1 | true', "None"),
        ('"$@" >&-', "None"),
        ('"$@" 2>&- | true', "None"),
        ('"$@" > /dev/full', "[Errno 28] No space left on device"),
        ('"$@" 2> /dev/full', "None"),
    ],
)
def test_work_goes_on_when_nobody_reads(tmp_path, ends, lost):
    done = shell(f"{ends}; exit ${{PIPESTATUS[0]}}", sys.executable, "-c", WORK, str(tmp_path / "done"))
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert (tmp_path / "done").read_text() == lost


@pytest.mark.slow
def test_a_stream_that_does_not_wait_loses_nothing():
    """As a program leaves it that shares a terminal or a pipe, and asks for no waiting."""
    work = (
        "import os\nfrom jobs import streams\nstreams.make_durable()\nos.set_blocking(1, False)\n"
        "for _ in range(20000): print('a line that is read late')"
    )
    done = shell('"$@" | (sleep 1; wc -l)', sys.executable, "-c", work)
    assert done.stdout.strip() == "20000" and not done.stderr


def test_a_closed_stream_does_not_give_its_number_to_a_file(tmp_path):
    """Else what a library prints would be written into it."""
    opens = (
        "import os, sys; from jobs import streams; streams.make_durable(); file = open(sys.argv[1], 'w'); "
        "os.write(1, b'noise'); os.write(2, b'noise'); assert file.fileno() > 2"
    )
    done = shell('"$@" <&- >&- 2>&-', sys.executable, "-c", opens, str(tmp_path / "data"))
    assert done.returncode == 0 and os.path.getsize(tmp_path / "data") == 0
