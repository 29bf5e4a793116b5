"""The command `tilespin`: finds the verb and imports only what it needs, so that help comes at once."""

import difflib
import importlib
import sys

# verb: (module with main(arguments), what it does). No torch, Ray or W&B may be imported above this line.
VERBS = {
    "study": ("jobs.study", "pretrain every task of a preset at equal budget, judge all, compare: the main job"),
    "pretrain": ("jobs.pretrain", "train an encoder on one pretext task"),
    "sweep": ("jobs.sweep", "find each task's learning rate: many short pretrainings, the worse stopped early"),
    "evaluate": ("jobs.evaluate", "judge the encoders of a study by transfer; computes what is missing"),
    "compare": ("jobs.compare", "table, results.csv and report.html of a study"),
    "export": ("jobs.export", "write an encoder for other programs: safetensors, timm, TorchScript, ONNX"),
    "pack": ("jobs.pack", "make a dataset small once, in tar shards that load fast"),
    "submit": ("jobs.submit", "run one of the others on a Ray cluster"),
    "jobs": ("jobs.submitted", "what was submitted to a cluster: list, logs, stop"),
    "doctor": ("jobs.doctor", "what this machine can do: GPU, Triton, DALI, Ray, W&B"),
}


def usage() -> str:
    lines = [f"  {verb:<10} {what}" for verb, (_, what) in VERBS.items()]
    return "\n".join(
        ["usage: tilespin VERB [options]", "", "Which pretext task learns the best representation of your images?",
         "", "verbs:", *lines, "", "tilespin VERB --help lists a verb's options with their defaults."]
    )  # fmt: skip


def main() -> None:
    """Exits with 0; with 2 and one line for input that a person can put right; with 1 if a job failed."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return
    verb = arguments[0]
    if verb in ("-V", "--version"):
        from importlib.metadata import version

        print(version("tilespin"))
        return
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, 1)
        meant = f"did you mean {close[0]}?" if close else f"there is {', '.join(VERBS)}"
        _fail(f"no verb {verb!r}: {meant}", 2)
    try:
        importlib.import_module(VERBS[verb][0]).main(arguments[1:])
    except KeyboardInterrupt:
        _fail("interrupted; the same command continues where it stopped", 130)
    except Exception as error:
        code = _code(error)
        if code is None:
            raise
        _fail(str(error), code)


def _code(error: Exception) -> int | None:
    """The exit code of an error that needs no traceback. Nothing is imported that is not already there."""
    kinds = {("ssl_core.errors", "BadInput"): 2, ("ssl_core.errors", "DiskFull"): 1, ("ssl_core.errors", "Diverged"): 1,
             ("ssl_core.errors", "StoreFailed"): 1, ("ssl_core.export", "ExportFailed"): 1,
             ("cluster.session", "ClusterError"): 1,
             ("jobs.layout", "JobsFailed"): 1, ("jobs.layout", "Left"): 143}  # fmt: skip
    for (module, name), code in kinds.items():
        loaded = sys.modules.get(module)
        if loaded and isinstance(error, getattr(loaded, name)):
            return code
    return None


def _fail(message: str, code: int) -> None:
    print(f"tilespin: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
