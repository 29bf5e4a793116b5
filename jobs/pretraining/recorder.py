"""Writes what a pretraining run leaves behind: metrics.jsonl, W&B, sample pictures and in the end the encoder."""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from jobs.config.start import load_start
from jobs.pretraining.encoder_files import Spent, describe_encoder, peak_bytes, write_weights
from jobs.pretraining.samples import sample_sheet
from jobs.study.folder import Study
from jobs.study.metrics import MetricsFile
from jobs.tracking.tracker import Tracker
from kernels.random import RandomBits
from ssl_core.data.dataset import Source
from ssl_core.data.sampler import make_sampler
from ssl_core.storage.async_writer import AsyncWriter
from ssl_core.storage.checkpoint import Snapshot
from ssl_core.storage.files import exists, write_bytes, write_json
from ssl_core.storage.records import EncoderRecord
from ssl_core.task import InputFormat, PretextModel

if TYPE_CHECKING:
    from jobs.pretraining.run import Training


class RunRecorder:
    """Records one pretraining run. Only rank 0 has one.

    Args:
        training: The run.
        source: Its dataset.
        state: The checkpoint that the run continues from, or None.
        writer: Writes in the background what takes time.
        faults: Why earlier attempts of this driver ended.
        workers: The number of workers.
        device: Where this worker trains.
    """

    def __init__(
        self,
        training: "Training",
        source: Source,
        state: dict | None,
        writer: AsyncWriter,
        faults: tuple[str, ...],
        workers: int,
        device: torch.device,
    ):
        recipe = training.recipe
        self.training, self.recipe, self.source = training, recipe, source
        self.folder = training.folder
        first = state["step"] if state else 0
        self.started, self.seconds_before = time.monotonic(), state["seconds"] if state else 0.0
        self.last = (first, self.started)
        self.row: dict = {}
        self.completed, self.workers, self.writer, self.device = False, workers, writer, device
        continued = exists(self.folder / "config.json")
        start = load_start(recipe.init)
        places = {"data": recipe.data, "init": start.label if start else recipe.init}
        config = {**recipe.identity(source), **places}
        write_json(self.folder / "config.json", config)
        self.rows = MetricsFile(self.folder / "metrics.jsonl", first, writer)
        self.tracker = Tracker(
            training.tracking,
            Study(training.study).root,
            id=f"{training.name}-{Study(training.study).token}",
            study=Study(training.study).root.name,
            job_type="pretrain",
            name=training.name,
            step="train/step",
            config=tracked_config(config),
        )
        restarts = self.rows.restarts + continued
        if continued:
            cause = faults[-1] if faults else "stopped; started again"
            self.rows.add({"step": first, "restart": restarts, "cause": cause, "workers": workers})
            self.tracker.restarted(restarts, first, cause)
        for row in self.rows.kept:  # what W&B lost when the last attempt died, it is sent again
            if "loss" in row:
                self._track(row)

    def seconds(self) -> float:
        """Returns the training time of all attempts, as far as it was not lost."""
        return self.seconds_before + time.monotonic() - self.started

    def log(self, step: int, means: dict[str, float], waited: float) -> None:
        """Writes a row of metrics.

        Args:
            step: The step that is completed.
            means: Means over the images since the last row.
            waited: The share of the time since the last row that training waited for data.
        """
        now = time.monotonic()
        images = (step - self.last[0]) * self.recipe.task.batch
        self.row = {
            "step": step,
            **means,
            "images": step * self.recipe.task.batch,
            "epoch": step * self.recipe.task.batch / len(self.source.train),
            "images_per_second": images / max(1e-9, now - self.last[1]),
            "waited": waited,
            "seconds": self.seconds(),
            "peak_bytes": peak_bytes(self.device),
            "workers": self.workers,
            "restarts": self.rows.restarts,
        }
        self.last = (step, now)
        self.rows.add(self.row)
        self._track(self.row)

    def _track(self, row: dict) -> None:
        self.tracker.log({f"train/{key}": value for key, value in row.items()}, row["step"])

    def checkpoint(self, state: dict) -> None:
        """Saves `state` in the background, after all rows up to its step."""
        self.rows.write()
        snapshot = Snapshot({**state, "seconds": self.seconds()})
        self.writer.put(
            "checkpoint", lambda: snapshot.save(self.folder / "checkpoints", self.training.keep), after=True
        )
        self.tracker.keep()

    def complete(
        self, model: PretextModel, format: InputFormat, loader, macs: int, skipped: list[str]
    ) -> EncoderRecord:
        """Writes samples.png and the encoder, and ends the W&B run.

        encoder.json comes last and means that the run is complete: a kill before it repeats the end, a kill after it
        leaves nothing to do.

        Args:
            model: The trained module.
            format: The pixels that it takes.
            loader: The loader that the sample batch comes from.
            macs: Multiply-accumulates of the encoder for one image, forward and backward.
            skipped: Names of files that could not be decoded.

        Returns:
            What encoder.json says.
        """
        seconds = self.seconds()
        self.rows.write()
        self.writer.flush()
        self._samples(model, format, loader)
        weights, recipe = write_weights(self.folder, model.encoder), self.recipe
        spent = Spent(
            step=recipe.steps,
            macs=macs,
            seconds=seconds,
            restarts=self.rows.restarts,
            workers=self.workers,
            pretext=self.row,
            skipped=tuple(skipped),
        )
        record = describe_encoder(self.training, self.source, model, format, spent)
        training = record.training
        assert training is not None
        if exists(self.folder / "samples.png"):
            self.tracker.image("samples", self.folder / "samples.png", recipe.steps + 1)
        self.tracker.artifact(f"encoder-{self.training.name}", "encoder", weights, asdict(record))
        unlike = {"stopped_early": False} if self.rows.restarts else {}  # what an earlier attempt may have left
        cost = {"images": training.images, "macs": training.macs, "seconds": seconds}
        self.tracker.summary({**unlike, "digest": record.digest, **cost})
        self.tracker.finish()
        record.write(self.folder / "encoder.json")
        self.completed = True
        return record

    def stopped(self, step: int) -> None:
        """Ends the W&B run of a training that is stopped early."""
        self.tracker.summary({"stopped_early": True, "stopped_at": step})
        self.tracker.finish()

    def close(self) -> None:
        """Ends the W&B run, as failed unless the training is complete."""
        self.tracker.finish(failed=not self.completed)

    @torch.no_grad()
    def _samples(self, model: PretextModel, format: InputFormat, loader) -> None:
        """Writes samples.png from the first batch that could be decoded; writes none if nothing can."""
        order = make_sampler(self.source.train, self.recipe.seed)
        model.eval()
        for batch in loader.training(order, 8, range(-(-len(self.source.train) // 8)), 0, 1):
            if (batch.weights > 0).all():
                inputs, targets = model.task.make_batch(
                    batch, RandomBits(batch.ids, batch.epochs, self.recipe.seed), format
                )
                with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
                    predictions = model(inputs)
                pictures = model.task.visualize(inputs, predictions, targets)
                write_bytes(self.folder / "samples.png", sample_sheet(pictures[:8]))
                return


def tracked_config(config: dict[str, Any]) -> dict[str, Any]:
    """Returns what W&B shows as a run's config: what config.json says, with the task's name under "task".

    Encoders that were not trained have it there too, so that W&B can group by it. The task's options are "options".
    """
    options = {name: value for name, value in config["task"].items() if name != "name"}
    return {**config, "task": config["task"]["name"], "options": options}
