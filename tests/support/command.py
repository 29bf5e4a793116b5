"""How tests run the command line: in a process of its own, as a user would."""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
QUIET = {"OMP_NUM_THREADS": "1", "COLUMNS": "120", "NO_COLOR": "1", "WANDB_MODE": "offline"}
# What nearly every verb imports, and torch.optim when it is first used; that takes longer than the verbs themselves
PRELOADED = ["torch._dynamo", "timm", "jobs.commands.study", "jobs.commands.pack"]
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(PRELOADED)


def complaint(stderr: str) -> str:
    """What the command line wrote, without the line that a busy machine adds: that modules are still being loaded."""
    return stderr.removeprefix("tilespin: loading modules\n")


def environment() -> dict[str, str]:
    """One thread, offline, and no cluster but our own."""
    return {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | QUIET


class Forked:
    """`python -m jobs.cli`, or another module, with arguments, in a process of its own that is forked from one which
    has imported PRELOADED."""

    def __init__(self, words: list[str], module: str, cwd: Path, env: dict[str, str], folder: Path):
        self.words, self.out, self.err = words, folder / "out", folder / "err"
        self.out.touch()
        self.err.touch()
        files = str(self.out), str(self.err)
        self.process = FORKSERVER.Process(target=_main, args=(module, words, str(cwd), env, *files))
        self.process.start()

    def poll(self) -> int | None:
        """Its exit code, or None while it runs; as a Popen's."""
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def wait(self, timeout: float = 900) -> subprocess.CompletedProcess:
        """How it ended, and what it said."""
        self.process.join(timeout)
        said = self.out.read_text(), self.err.read_text()
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired(self.words, timeout, *said)
        return subprocess.CompletedProcess(self.words, self.process.exitcode, *said)


@contextmanager
def forked(
    *arguments, module: str = "jobs.cli", cwd: Path = ROOT, env: dict[str, str] | None = None
) -> Iterator[Forked]:
    """Such a process, for a test to wait for or to send signals; what is left of it after the block is killed.

    Where it matters what is imported when, or whose terminal it is, a test starts `python -m jobs.cli` instead.
    """
    with tempfile.TemporaryDirectory() as folder:
        env = environment() if env is None else env
        running = Forked([*map(str, arguments)], module, cwd, env, Path(folder))
        try:
            yield running
        finally:
            running.process.kill()
            running.process.join()


def run_forked(*arguments, timeout: float = 900, **options) -> subprocess.CompletedProcess:
    """What such a process said, and how it ended."""
    with forked(*arguments, **options) as running:
        return running.wait(timeout)


def _main(module: str, arguments: list[str], cwd: str, env: dict[str, str], out: str, err: str) -> None:
    for stream, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY), stream)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = [cwd, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    for name in [name for name in sys.modules if name.partition(".")[0] == "wandb"]:
        del sys.modules[name]  # timm has imported it, and it looks at the environment when it is imported
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out
