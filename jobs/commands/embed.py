"""Runs `tilespin embed ENCODER`: writes the features of a dataset's images for other programs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jobs.config.options import VerbOptions
from jobs.config.parsing import parse
from jobs.config.plugins import PluginOptions
from jobs.config.runtime import RuntimeConfig
from jobs.embedding.plan import EmbeddingConfig, make_plan
from jobs.embedding.run import run_plan
from ssl_core.errors import TilespinError, UserError, some


@dataclass(frozen=True, kw_only=True)
class Options(VerbOptions):
    """Write the features of a dataset's images by an encoder, with their names and labels, for other programs. The
    encoder is used as it is saved: batch norm keeps the statistics of the training, which evaluations estimate anew.
    Images that cannot be decoded are left out. The same command again continues."""

    encoder: Annotated[str, tyro.conf.Positional]
    """a run's folder, such as runs/demo/pretrain/rotnet-0123456789ab, or what `tilespin evaluate --encoder` takes"""
    data: str
    """dataset, as `tilespin pretrain --data` takes it"""
    output: str
    """file to write, or a URL: FILE.parquet (a table), FILE.npy (the features; the rest is in FILE.npy.csv and
    FILE.npy.json) or FILE.safetensors (features, ids and labels; names are in FILE.safetensors.csv)"""
    embedding: EmbeddingConfig = EmbeddingConfig()
    workers: int = 0
    """0: run in this process
    N: run on Ray, N parts at once, or as many as fit on the cluster that RAY_ADDRESS names"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda if this machine has a GPU, else cpu"""
    decode_threads: int = -1
    """threads of each worker that decode images; -1: the cores are divided among the workers"""
    plugins: PluginOptions = PluginOptions()


def main(arguments: list[str]) -> None:
    """Runs `tilespin embed` with these command-line arguments."""
    run(parse(Options, "embed", arguments))


def run(options: Options) -> Path:
    """Writes the file, says so in one line, and returns its path.

    Raises:
        UserError: If an option cannot be used, or the file cannot be written.
        JobsFailed: If some images' features could not be computed.
        Terminated: If a signal asked this process to stop.
    """
    if options.workers < 0:
        raise UserError(f"--workers is {options.workers}, expected 0 or more")
    runtime = RuntimeConfig(
        workers=str(options.workers), device=options.device, decode_threads=options.decode_threads, wandb="off"
    ).checked()
    plan = make_plan(options.encoder, options.data, options.output, options.embedding, runtime)
    try:
        written = run_plan(plan)
    except OSError as error:
        if isinstance(error, TilespinError):
            raise
        raise UserError(f"--output {options.output} cannot be written: {error.strerror or error}") from error
    record = plan.embedding.record
    if written.rows is None:
        print(f"{plan.output}: there already, of this encoder, these images and these options")
        return plan.output
    what = f"stage {record.stage} of {record.encoder}, {record.pool}"
    print(f"{plan.output}: {written.rows:,} images, {record.width:,} numbers each ({what})")
    if written.skipped:
        print(f"left out: {len(written.skipped):,} that cannot be decoded: {some(written.skipped)}")
    return plan.output
