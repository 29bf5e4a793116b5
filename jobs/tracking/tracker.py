"""Tracks one Weights & Biases run for each encoder, and one for each comparison. Tracking may fail; work goes on."""

import contextlib
import json
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jobs.study.warning_log import warn
from jobs.tracking import offline_runs
from jobs.tracking.connection import DecidedMode, end_wandb_client, wandb_client, why_no_answer

if TYPE_CHECKING:
    from wandb import Run

    from jobs.study.folder import Study

MAX_TAG = 64  # characters, which is W&B's own limit
INIT_SECONDS, FINISH_SECONDS, FLUSH_SECONDS = 30, 300, 30
_unreachable = False  # found out by a run of this process: the next ones need not wait for it again


class Tracker:
    """Tracks one run in W&B.

    With `step`, a run is continued whenever the same id comes again. Its rows have a step, and the caller, which
    keeps all of them, hands them over again when it continues: those that W&B lacks are sent, so that each is there
    exactly once. Without `step`, a run has one result, which replaces that of an earlier attempt under the same id.

    Args:
        mode: How to track.
        folder: The study's folder, on a disk or in a store.
        id: The run's id in W&B.
        study: The study's name, which is the run's group.
        job_type: The kind of run: "pretrain", "encoder" (which was not trained here) or "compare".
        name: The run's name.
        config: What W&B shows as the run's config.
        tags: Words to find the run by.
        step: The metric that all others are plotted over, or None.
    """

    def __init__(
        self,
        mode: DecidedMode,
        folder: Path,
        *,
        id: str,
        study: str,
        job_type: str,
        name: str,
        config: dict,
        tags: tuple[str, ...] = (),
        step: str | None = None,
    ):
        """`step` names the metric that all others are plotted over. `mode` is not "auto" any more. `folder` is the
        study's, on a disk or in a store."""
        self.run: Run | None = None
        self.folder, self.local = folder, folder
        self.uploaded_step = -1  # the last step that W&B has
        self.upload: offline_runs.Upload | None = None
        self.uploading: threading.Thread | None = None
        if mode == "off":
            return
        if mode == "online" and _unreachable:
            mode = "offline"
        # a service inherited from another process would outlive this one, hold its run open and refuse the next attempt
        os.environ.pop("WANDB_SERVICE", None)
        with self._guard("start"):
            if not isinstance(folder, Path):
                self._write_to_local_cache(id)
            self.local.mkdir(parents=True, exist_ok=True)
            # artifacts wait for an upload beside their runs, so that both can be moved to a machine with a connection
            os.environ["WANDB_DATA_DIR"] = str(self.local / "wandb")
            tags = tuple(dict.fromkeys(tag[:MAX_TAG] for tag in tags if tag))
            given = dict(id=id, group=study, job_type=job_type, name=name, config=config, tags=tags or None)
            try:
                self.run = run = self._start_run(mode, step is not None, given)
            except Exception as error:
                if mode != "online":
                    raise
                end_wandb_client()  # which would go on trying, and hold the id
                _give_up_without_answer()
                self.run = run = self._start_run("offline", step is not None, given)
                others = " and the runs after it are" if _unreachable else " is"
                warn(folder, f"W&B did not answer, so {name}{others} tracked offline: {error}")
            if step:
                run.define_metric(step)
                run.define_metric("*", step_metric=step, step_sync=False)  # every row has it, pictures have none

    def _write_to_local_cache(self, id: str) -> None:
        """Has the client write into a folder of this machine's cache, which is copied to the study's store from time
        to time.

        The client writes into local folders only. What an attempt that was killed here left there is in the store as
        far as it counts.
        """
        from ssl_core.storage.cache import folder as cache

        self.local = cache() / "wandb" / "running" / id
        shutil.rmtree(self.local, ignore_errors=True)
        self.upload = offline_runs.Upload(self.local, self.folder)

    def _start_run(self, mode: Literal["online", "offline"], continued: bool, given: dict) -> "Run":
        wandb, id = wandb_client(), given["id"]
        if mode == "offline" and continued:
            if self.upload is None:
                offline_runs.truncate_torn_tail(self.folder, id)
            self.uploaded_step = offline_runs.last_step(self.folder, id)
        elif mode == "offline":
            offline_runs.delete_run(self.folder, id)
        run = wandb.init(
            mode=mode,
            dir=str(self.local),
            project=os.environ.get("WANDB_PROJECT", "tilespin"),
            resume="allow",
            **given,
            settings=wandb.Settings(console="off", silent=True, init_timeout=INIT_SECONDS, **_limits(wandb)),
        )
        if mode == "online":
            # not the summary's step: that may have been uploaded before the row it comes from
            self.uploaded_step = run.starting_step - 1
            # what was tracked offline before is sent again as far as it lacks
            offline_runs.mark_synced(self.folder, id)
        return run

    def _guard(self, doing: str) -> "_Guard":
        return _Guard(self, doing)

    def log(self, values: dict, step: int) -> None:
        """Sends a row of history, unless W&B has this step, or a later one, already."""
        if self.run and step > self.uploaded_step:
            with self._guard("log"):
                self.run.log(values, step=step, commit=True)
                self.uploaded_step = step

    def result(self, values: dict, step: int = 0) -> None:
        """Sends numbers that a run has once: a row of history, unless W&B has this step already, and the summary."""
        new = step > self.uploaded_step
        self.log(values, step)
        if new or (self.run and not self.run.offline):  # offline, each segment would have it once more
            self.summary(values)

    def restarted(self, count: int, step: int, cause: str | None) -> None:
        """Notes that training goes on from `step` for the `count`th time; rows show it by a column of their own."""
        self.summary({"restarts": count, f"restart/{count}": f"from step {step}" + (f": {cause}" if cause else "")})

    def image(self, name: str, path: Path, step: int) -> None:
        """Sends a picture as a row of its own, so `step` is none that others have."""
        if self.run:
            with self._guard("log a picture"):
                import wandb
                from PIL import Image

                with path.open("rb") as file:
                    self.log({name: wandb.Image(Image.open(file))}, step)

    def table(self, name: str, columns: list[str], rows: list[list]) -> None:
        """Sends a table."""
        if self.run:
            with self._guard("log a table"):
                import wandb

                self.run.log({name: wandb.Table(columns=[*columns], data=[*rows])})

    def summary(self, values: dict) -> None:
        """Updates the run's summary."""
        if self.run:
            with self._guard("write the summary"):
                self.run.summary.update(values)

    def artifact(self, name: str, kind: str, weights: Path, described: dict) -> None:
        """Sends weights as an artifact, with `described` as metadata and as the file <weights>.json, which need not
        be there yet.

        Weights in a store are sent as a reference, for they may be nowhere on the machine that uploads.

        Args:
            name: The artifact's name.
            kind: The artifact's type.
            weights: The file.
            described: What describes it.
        """
        if self.run:
            with self._guard("log an artifact"):
                import wandb

                artifact = wandb.Artifact(name, kind, metadata=described)
                if isinstance(weights, Path):
                    artifact.add_file(str(weights))
                    with artifact.new_file(weights.with_suffix(".json").name) as file:
                        json.dump(described, file, indent=1, sort_keys=True)
                else:
                    artifact.add_reference(str(weights), name=weights.name, checksum=False)
                self.run.log_artifact(artifact)

    def entity_and_project(self) -> tuple[str, str] | None:
        """Returns the entity and project of a run that is online, or None."""
        return None if self.run is None or self.run.offline else (self.run.entity, self.run.project)

    def keep(self) -> None:
        """Uploads what was tracked offline to the study's store, if it is in one, without waiting for it.

        Best called at each checkpoint. What is not kept when this machine dies is sent again by the next.
        """
        if self.run and self.upload and not (self.uploading and self.uploading.is_alive()):
            self.uploading = threading.Thread(target=self._try_to_send, args=(self.upload,), daemon=True)
            self.uploading.start()

    def _try_to_send(self, upload: offline_runs.Upload) -> None:
        with contextlib.suppress(Exception):  # the next checkpoint tries again, and the end says so if it cannot
            upload.send()

    def finish(self, failed: bool = False) -> None:
        """Ends the run, online when all is uploaded. A second call does nothing."""
        if self.run:
            with self._guard("finish"):
                offline, id = self.run.offline, self.run.id
                self.run.finish(exit_code=int(failed))
                if offline:
                    offline_runs.wait_for_end(self.local, id, FLUSH_SECONDS)
                self.run = None
        if self.upload:
            with self._guard("keep what was tracked in the study's storage"):
                if self.uploading:
                    self.uploading.join()
                self.upload.send(all=True)
                shutil.rmtree(self.local, ignore_errors=True)
            self.upload = None


def _give_up_without_answer() -> None:
    """Notes whether W&B answers at all: the server may have had something against one run only."""
    global _unreachable
    _unreachable = why_no_answer() is not None


def _limits(wandb) -> dict:
    """Returns settings that keep the end of an online run from waiting for ever; older clients do not have them."""
    known = wandb.Settings.model_fields
    wanted = {"finish_timeout": FINISH_SECONDS, "finish_timeout_raises": True}
    return {key: value for key, value in wanted.items() if key in known}


class _Guard:
    """Turns any exception of the client into one warning, and ends tracking."""

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


def print_sync_command(study: "Study") -> None:
    """Prints how to upload what was tracked offline, if anything was."""
    if command := offline_runs.sync_command(study.root):
        print(f"W&B runs are offline; to upload them: {command}", file=sys.stderr)
