"""How tests run the command line: in a process of its own, as a user would."""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
QUIET = {"OMP_NUM_THREADS": "1", "COLUMNS": "120", "NO_COLOR": "1", "WANDB_MODE": "offline"}
# What nearly every verb imports, and torch.optim when it is first used; that takes longer than the verbs themselves
PRELOADED = ["torch._dynamo", "timm.optim", "jobs.commands.study", "jobs.commands.pack"]
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(PRELOADED)


def complaint(stderr: str) -> str:
    """What the command line wrote, without the line that a busy machine adds: that modules are still being loaded."""
    return stderr.removeprefix("tilespin: loading modules\n")


def environment() -> dict[str, str]:
    """One thread, offline, and no cluster but our own."""
    return {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | QUIET


def run_forked(
    *arguments, module: str = "jobs.cli", timeout: float = 900, cwd: Path = ROOT, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    """What `python -m jobs.cli`, or another module, does with arguments, in a process of its own that is forked from
    one which has imported PRELOADED.

    Where signals matter, or what is imported when, a test starts `python -m jobs.cli` instead.
    """
    words = [*map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Path(folder, name) for name in ("out", "err"))
        env = environment() if env is None else env
        process = FORKSERVER.Process(target=_main, args=(module, words, str(cwd), env, str(out), str(err)))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(words, timeout, out.read_text(), err.read_text())
        return subprocess.CompletedProcess(words, process.exitcode, out.read_text(), err.read_text())


def _main(module: str, arguments: list[str], cwd: str, env: dict[str, str], out: str, err: str) -> None:
    for stream, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), stream)
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
