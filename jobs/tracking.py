"""Weights & Biases: one run for each pretraining and evaluation. It may fail; the work goes on."""

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jobs.notices import warn

if TYPE_CHECKING:
    from jobs.layout import Study

Mode = Literal["auto", "online", "offline", "off"]

FINISH_SECONDS = 300
HEADER_BYTES = 7  # of a .wandb file without records
# The client flushes its file every 15 s; a killed run would lose as much. Its chatter would go over the screen.
SETTINGS = {"WANDB_SILENT": "true", "WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL": "1", "WANDB_ERROR_REPORTING": "false"}


def resolve(mode: Mode) -> Mode:
    """auto: what WANDB_MODE says, else online if the user is logged in, else offline."""
    if mode != "auto":
        return mode
    said = os.environ.get("WANDB_MODE")
    if said in ("online", "offline"):
        return said
    if said in ("disabled", "dryrun"):
        return "off" if said == "disabled" else "offline"
    try:
        import wandb

        return "online" if wandb.login(prompt=False) else "offline"
    except Exception:  # a client that cannot answer must not stop a job
        return "offline"


class Tracker:
    """A W&B run that is continued whenever the same id comes again."""

    def __init__(
        self, mode: Mode, folder: Path, *, id: str, study: str, job_type: str, name: str, config: dict,
        step: str | None = None,
    ):  # fmt: skip
        """`step` names the metric that all others are plotted over. `mode` is not "auto" any more."""
        self.run, self.folder = None, folder
        if mode == "off":
            return
        for key, value in SETTINGS.items():
            os.environ.setdefault(key, value)
        # artifacts wait for an upload beside their runs, so that both can be moved to a machine with a connection
        os.environ["WANDB_DATA_DIR"] = str(folder / "wandb")
        with self._guard("start"):
            import wandb

            folder.mkdir(parents=True, exist_ok=True)
            self.run = wandb.init(
                mode=mode, dir=str(folder), project=os.environ.get("WANDB_PROJECT", "tilespin"), group=study,
                job_type=job_type, id=id, name=name, config=config, resume="allow",
                settings=wandb.Settings(console="off", silent=True, init_timeout=60, **_limits(wandb)),
            )  # fmt: skip
            if step:
                self.run.define_metric(step)
                self.run.define_metric("*", step_metric=step)

    def _guard(self, doing: str) -> "_Guard":
        return _Guard(self, doing)

    def log(self, values: dict) -> None:
        if self.run:
            with self._guard("log"):
                self.run.log(values)

    def picture(self, name: str, path: Path) -> None:
        if self.run:
            with self._guard("log a picture"):
                import wandb

                self.run.log({name: wandb.Image(str(path))})

    def table(self, name: str, columns: list[str], rows: list[list]) -> None:
        if self.run:
            with self._guard("log a table"):
                import wandb

                self.run.log({name: wandb.Table(columns=columns, data=rows)})

    def summary(self, values: dict) -> None:
        if self.run:
            with self._guard("write the summary"):
                self.run.summary.update(values)

    def artifact(self, name: str, kind: str, files: list[Path], metadata: dict) -> None:
        if self.run:
            with self._guard("log an artifact"):
                import wandb

                artifact = wandb.Artifact(name, kind, metadata=metadata)
                for file in files:
                    artifact.add_file(str(file))
                self.run.log_artifact(artifact)

    def finish(self, failed: bool = False) -> None:
        if self.run:
            with self._guard("finish"):
                self.run.finish(exit_code=int(failed))


def _limits(wandb) -> dict:
    """Finishing online without a connection must not wait for ever; older clients cannot be told."""
    known = wandb.Settings.model_fields
    wanted = {"finish_timeout": FINISH_SECONDS, "finish_timeout_raises": True}
    return {key: value for key, value in wanted.items() if key in known}


class _Guard:
    """Turns any exception of the client into one warning, and tracking off."""

    def __init__(self, tracker: Tracker, doing: str):
        self.tracker, self.doing = tracker, doing

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, trace) -> bool:
        if error is None or not isinstance(error, Exception):
            return False
        self.tracker.run = None
        warn(self.tracker.folder, f"W&B tracking stopped, the job goes on: could not {self.doing}: {error}")
        return True


def say_sync(study: "Study") -> None:
    """How to upload what was tracked offline."""
    if command := sync_command(study.root):
        print(f"W&B runs are offline; to upload them: {command}", file=sys.stderr)


def sync_command(folder: Path) -> str | None:
    """The command that uploads every offline run below `folder`, or None if there is none. Nothing may be running:
    a segment whose writer was killed before its first record holds nothing, and the client would stop at it and
    skip the run's later segments, so such segments are removed."""
    segments = sorted(folder.glob("wandb/offline-run-*"))
    for segment in list(segments):
        records = list(segment.glob("*.wandb"))
        if all(file.stat().st_size <= HEADER_BYTES for file in records):
            shutil.rmtree(segment)
            segments.remove(segment)
    return f"wandb sync {shlex.quote(str(folder))}/wandb/offline-run-*" if segments else None
