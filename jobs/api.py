"""Offers what the command line does to Python programs and notebooks; `import tilespin` gives the same names.

Nothing is printed unless `verbose=True`, no signal is handled, and what goes wrong is an exception: `UserError` for
input that a person can put right.
"""

import contextlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.api_results import Comparison, Results, Run, Study
from jobs.commands import compare as compare_command
from jobs.commands import embed as embed_command
from jobs.commands import pretrain as pretrain_command
from jobs.commands import study as study_command
from jobs.config.evaluation import Evaluation
from jobs.config.parsing import parse
from jobs.config.plugins import load_plugins
from jobs.execution.signals import without_signal_handlers
from ssl_core.errors import UserError

if TYPE_CHECKING:
    import torch


def pretrain(task: str, data: str | Path, *, verbose: bool = False, **options: Any) -> Run:
    """Pretrains an encoder on one pretext task; the same call again returns the finished run.

    Args:
        task: One of `list_tasks()`, or a recipe of the literature.
        data: A dataset as --data of `tilespin pretrain` takes it: cifar10, or a folder of images.
        verbose: Whether progress is printed.
        options: Any option of `tilespin pretrain TASK`, with underscores: encoder="resnet18", steps=2000, batch=256,
            transform="jigsaw", lr=0.01, storage="runs", name="birds".

    Raises:
        UserError: If an option does not exist or cannot work.
        JobsFailed: If training failed.
    """
    values = {"task": task, "data": data, **options}
    load_plugins(["--config", json.dumps(values, default=str)])  # before their tasks are asked for
    parsed = _parsed(pretrain_command.options_type(), "pretrain", values)
    with _session(verbose):
        return Run(pretrain_command.run(parsed).folder)


def study(study: str | Path | Mapping[str, Any] = "demo", *, verbose: bool = False, **options: Any) -> Study:
    """Pretrains every task of a study at equal budget, evaluates all encoders by transfer, and compares them.

    Args:
        study: The file of a study (.toml, .json), the name of a built-in one, or what such a file holds as a mapping.
        verbose: Whether progress and the table are printed.
        options: Any of `tilespin study`, such as seeds=3, tasks=["rotnet", {"name": "pirl", "lr": 0.01}], workers="0".

    Raises:
        UserError: If an option does not exist or cannot work.
        JobsFailed: If some jobs failed; the same call does these again.
    """
    file, own = ([], study) if isinstance(study, Mapping) else ([str(study)], {})
    parsed = _parsed(study_command.Options, "study", {**own, **options}, *file)
    with _session(verbose):
        return Study(study_command.run(parsed).root)


def compare(
    *studies: Study | str | Path, name: str = "comparison", wandb: str = "auto", verbose: bool = False
) -> Comparison:
    """Compares the encoders of one study, or of several. Only the studies' folders are read.

    Args:
        studies: Studies or their folders.
        name: Of the folder beside the first study that gets the report, if there are several.
        wandb: "off", "offline", "online", or "auto": online if you are logged in.
        verbose: Whether the table is printed.

    Raises:
        UserError: If a folder holds no study, or nothing has been evaluated.
    """
    folders = [str(one.folder if isinstance(one, Study) else one) for one in studies]
    parsed = _parsed(compare_command.Options, "compare", {"studies": folders, "name": name, "wandb": wandb})
    with _session(verbose):
        return Comparison(compare_command.run(parsed).root)


def evaluate(
    encoder: "Run | str | Path | torch.nn.Module",
    data: str | Path,
    *,
    protocols: Iterable[str] = Evaluation().protocols,
    size: int | None = None,
    num_labels: int = Evaluation().num_labels,
    val_fraction: float = Evaluation().val_fraction,
    probe_seed: int = 0,
    device: str | None = None,
    decode_threads: int = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Results:
    """Evaluates one encoder by transfer, in this process, and writes no file.

    To keep results, to compare them with baselines and to continue after an interruption, evaluate in a study:
    `tilespin evaluate STUDY --encoder …`.

    Args:
        encoder: A run; what --encoder of `tilespin evaluate` takes: timm:NAME, timm:NAME=FILE, a run's folder; or a
            network, [b, 3, h, w] -> [b, width], [b, width, h', w'], or a list of these. A network is copied.
        data: A dataset with labels or masks; protocols that need neither take any.
        protocols: Names, see `list_protocols()`; on images with masks, segmentation takes the place of those that need
            labels.
        size: Side in pixels that images are resized to; default: the dataset's own.
        num_labels: Labeled training images that a probe may use, held-out ones included; 0 for all.
        val_fraction: Share of them that chooses hyperparameters.
        probe_seed: Decides which labeled images are used.
        device: "cpu" or "cuda"; default: cuda if there is one.
        decode_threads: Threads that decode images; 0 for one for each core.
        mean: By which the pixels of a network are normalized, for each channel, of 0..255; default: ImageNet's.
        std: As `mean`.

    Raises:
        UserError: If the encoder, the dataset or a protocol cannot be used.
        Diverged: If features are not finite.
    """
    from jobs.evaluation.direct import evaluate_directly

    evaluation = Evaluation(
        protocols=tuple(protocols), num_labels=num_labels, val_fraction=val_fraction, probe_seed=probe_seed
    )
    statistics = None if mean is None and std is None else (mean, std)
    given = str(encoder.folder) if isinstance(encoder, Run) else encoder
    return Results(evaluate_directly(given, str(data), size, evaluation, device, decode_threads, statistics))


def embed(
    encoder: Run | str | Path, data: str | Path, *, output: str | Path, verbose: bool = False, **options: Any
) -> Path:
    """Writes the features of a dataset's images, with their names and labels; the same call again continues.

    Args:
        encoder: A run or its folder, or what --encoder of `tilespin evaluate` takes: timm:NAME, timm:NAME=FILE.
        data: A dataset as --data of `tilespin pretrain` takes it.
        output: The file to write, or a URL; its name ends with .parquet, .npy or .safetensors.
        verbose: Whether progress is printed.
        options: Any option of `tilespin embed`, with underscores: stage="cls", pool="2x2", split="test", size=224.

    Returns:
        The file.

    Raises:
        UserError: If an option cannot work, or the file is there already and is of something else.
        JobsFailed: If features could not be computed.
    """
    given = str(encoder.folder) if isinstance(encoder, Run) else encoder
    values = {"encoder": given, "data": data, "output": output, **options}
    load_plugins(["--config", json.dumps(values, default=str)])
    parsed = _parsed(embed_command.Options, "embed", values)
    with _session(verbose):
        return embed_command.run(parsed)


def load_encoder(encoder: Run | str | Path) -> "torch.nn.Module":
    """Loads an encoder that takes pixels as they are: [b, 3, h, w] of 0..255, uint8 or float32.

    It normalizes them as it was trained with, and returns a tuple of float32 maps, [b, width, h', w'], one for each
    stage, shallow to deep.

    Args:
        encoder: A run or its folder, or what --encoder of `tilespin evaluate` takes: timm:NAME, timm:NAME=FILE.

    Raises:
        UserError: If there is no such encoder, or its file is damaged.
    """
    from ssl_core.encoders.pixel_encoder import load_pixel_encoder

    return load_pixel_encoder(str(encoder.folder if isinstance(encoder, Run) else encoder))


def list_tasks() -> list[str]:
    """Returns the names of all pretext tasks, plug-ins included."""
    from ssl_core.task import tasks

    return list(tasks())


def list_protocols() -> list[str]:
    """Returns the names of all evaluation protocols, plug-ins included."""
    from ssl_core.evaluation.protocol import protocols

    return list(protocols())


def list_encoders(pattern: str = "") -> list[str]:
    """Returns names of encoders: the small ones of Tilespin, then timm's.

    A few of timm's models cannot be pretrained here; `pretrain` says so, and why.

    Args:
        pattern: Part of the names that are wanted, or a pattern with wildcards such as "resnet*".
    """
    import fnmatch

    import timm

    import ssl_core.encoders.build as encoders

    names = [*encoders.OWN, *timm.list_models()]
    wanted = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    return [name for name in names if fnmatch.fnmatch(name, wanted)]


def _parsed(kind: Any, verb: str, values: dict[str, Any], *words: str) -> Any:
    """Returns a verb's options with these values. Raises UserError as the command line does, without its dashes."""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            return parse(kind, verb, [*words, "--config", json.dumps(values, default=str)])
        except UserError as error:
            raise UserError(str(error).removeprefix("--config: ")) from error


@contextlib.contextmanager
def _session(verbose: bool) -> Iterator[None]:
    """Runs a block without signal handlers and, unless `verbose`, without output."""
    from kernels.cache import prepare

    prepare()
    with contextlib.ExitStack() as stack:
        stack.enter_context(without_signal_handlers())
        if not verbose:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield
