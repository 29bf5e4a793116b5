"""Runs the command `tilespin`: finds the verb and imports only what it needs, so that help comes at once."""

import os
import signal
import sys
import threading
from importlib import import_module
from types import ModuleType

from jobs import streams
from ssl_core.errors import TilespinError, choose

# verb: (module with main(arguments), what it does). No torch, Ray or W&B may be imported above this line.
VERBS = {
    "data": ("jobs.commands.data", "describe a dataset: classes, sizes, what cannot be read, what is there twice"),
    "study": (
        "jobs.commands.study",
        "pretrain every task of a preset at equal budget, evaluate all, compare",
    ),
    "pretrain": ("jobs.commands.pretrain", "train an encoder on one pretext task"),
    "sweep": (
        "jobs.commands.sweep",
        "find each task's learning rate by many short pretrainings; the worse are stopped early",
    ),
    "evaluate": (
        "jobs.commands.evaluate",
        "evaluate the encoders of a study by transfer; only what is missing is computed",
    ),
    "compare": ("jobs.commands.compare", "show the results of a study: table, results.csv and report.html"),
    "export": ("jobs.commands.export", "write an encoder for other programs: safetensors, timm, TorchScript, ONNX"),
    "embed": ("jobs.commands.embed", "write the features of images for other programs: Parquet, NumPy, safetensors"),
    "pack": ("jobs.commands.pack", "resize a dataset once and write it as tar shards that load fast"),
    "submit": ("jobs.commands.submit", "run one of the other verbs on a Ray cluster"),
    "jobs": ("jobs.commands.jobs", "list, follow and stop what was submitted to a cluster"),
    "doctor": ("jobs.commands.doctor", "say what this machine can do: GPU, Triton, DALI, Ray, W&B"),
}
CONTINUING = {"study", "pretrain", "sweep", "evaluate", "embed", "pack"}  # verbs that save what they have done
QUIET_SECONDS = 3.0  # that loading a verb may take before a line says why nothing happens


def usage() -> str:
    """Returns the help text of `tilespin` without a verb."""
    lines = [f"  {verb:<10} {what}" for verb, (_, what) in VERBS.items()]
    return "\n".join(
        [
            "usage: tilespin VERB [options]",
            "",
            "Which pretext task learns the best representation of your images?",
            "",
            "verbs:",
            *lines,
            "",
            "tilespin VERB --help lists a verb's options with their defaults.",
        ]
    )


def main() -> None:
    """Runs the command line of this process and exits with a code that says how it went.

    The code is 0 for success; 2, after one line, for input that a person can put right; 1 if a job failed or what
    was printed could not be written; 128 + its number after a signal.
    """
    streams.make_durable()
    try:
        run_command(sys.argv[1:])
    except KeyboardInterrupt:
        continues = "; the same command continues where it stopped" if CONTINUING.intersection(sys.argv[1:2]) else ""
        _exit_with_message(f"interrupted{continues}", 128 + signal.SIGINT)
    except TilespinError as error:
        _exit_with_message(str(error), error.exit_code)
    if error := streams.write_error():
        _exit_with_message(f"what was printed is lost: {error.strerror}", 1)


def run_command(arguments: list[str]) -> None:
    """Runs the verb that `arguments` begin with, or prints help or the version."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return
    verb = arguments[0]
    if verb in ("-V", "--version"):
        from importlib.metadata import version

        print(version("tilespin"))
        return
    if verb not in VERBS:
        _exit_with_message(f"no verb {verb!r}: {choose(verb, VERBS)}", 2)
    try:
        os.getcwd()
    except OSError:
        _exit_with_message("the current folder does not exist any more: change to one that does", 2)
    from kernels.cache import prepare

    prepare()
    load_command(VERBS[verb][0]).main(arguments[1:])


def load_command(name: str) -> ModuleType:
    """Imports the module of this name and returns it; a line on stderr says so if that takes long, as from a cold
    disk.

    Ctrl-C ends the process at once: libraries that are being imported may lose it, or answer with a traceback of
    their own.
    """
    timer = threading.Timer(QUIET_SECONDS, print, ["tilespin: loading modules"], dict(file=sys.stderr, flush=True))
    timer.daemon = True
    before = signal.getsignal(signal.SIGINT)
    interruptible = before is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, _exit_on_sigterm)
    timer.start()
    try:
        return import_module(name)
    finally:
        timer.cancel()
        if interruptible:
            signal.signal(signal.SIGINT, before)


def _exit_on_sigterm(*_) -> None:
    print("tilespin: interrupted", file=sys.stderr, flush=True)
    os._exit(128 + signal.SIGINT)


def _exit_with_message(message: str, code: int) -> None:
    print(f"tilespin: {' '.join(message.split())}", file=sys.stderr, flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
