"""Plans the trainings of a study: every combination of tasks, encoders, starts, lengths and seeds."""

from collections.abc import Iterator
from dataclasses import replace

from jobs.config.recipe import PretrainConfig
from jobs.config.start import load_start
from jobs.config.study import SUPERVISED, StudyConfig, TaskEntry
from jobs.pretraining.run import Training, build_model
from ssl_core.data.dataset import Source, open_source
from ssl_core.errors import UserError
from ssl_core.macs import encoder_macs
from ssl_core.task import task_name


def plan_trainings(config: StudyConfig) -> list[PretrainConfig]:
    """Returns the trainings of a study; those of one budget spend equally many encoder MACs, forward and backward.

    Args:
        config: The study.

    Raises:
        UserError: If an option is out of range, a dataset or an encoder cannot be used, or a start fits no encoder.
    """
    config.check()
    found = []
    for encoder, init in _starts(config):
        for task, data, size in _tasks(config):
            first = PretrainConfig(task=task, data=data, size=size, encoder=encoder, init=init, seed=config.seed)
            for one in _of_lengths(config, first):
                found += [replace(one, seed=config.seed + i) for i in range(config.seeds)]
    return found


def _starts(config: StudyConfig) -> list[tuple[str, str]]:
    """Returns encoders and where each starts; pretrained weights start the encoder whose architecture they have."""
    found = [(encoder, init) for encoder in config.encoders for init in config.init if _fits(encoder, init)]
    for init in config.init:
        if (start := load_start(init)) and start.architecture not in config.encoders:
            raise UserError(f"--init {init} is a {start.architecture}, which is not among --encoders")
    return found


def _fits(encoder: str, init: str) -> bool:
    start = load_start(init)
    return start is None or start.architecture == encoder


def _tasks(config: StudyConfig) -> Iterator[tuple[object, str, int | None]]:
    """Yields the options of each task, and the images and their size that it is trained on."""
    data, size = config.pretrain.data, config.pretrain.size
    for entry in config.tasks:
        yield entry.config(), data, size
    if not config.supervised or SUPERVISED in {entry.name for entry in config.tasks}:
        return
    task = TaskEntry(SUPERVISED).config()
    if _has_one_label(open_source(data, size)):
        yield task, data, size
        return
    for entry in config.transfer:
        if _has_one_label(open_source(entry.data, entry.size)):
            yield task, entry.data, entry.size


def _has_one_label(source: Source) -> bool:
    return bool(source.classes) and not source.multilabel


def _of_lengths(config: StudyConfig, first: PretrainConfig) -> Iterator[PretrainConfig]:
    """Yields a training for each budget, number of epochs or number of steps."""
    unit, values = config.lengths()
    if unit != "budget":
        yield from (replace(first, **{unit: value}) for value in values)
        return
    source = first.source()
    macs = encoder_macs(build_model(first, source)[0], source.size) * first.task.batch
    for budget in values:
        steps = round(budget * 1e9 / macs)
        if steps < 1:
            raise UserError(f"--budget {budget:g} GMACs is less than one step of {task_name(first.task)}")
        yield replace(first, steps=steps)


def longest_first(trainings: list[Training]) -> list[Training]:
    """Sorts runs, the longest first, so that the last to finish starts first: views cost overhead that MACs do not
    show."""
    return sorted(trainings, key=lambda t: -t.recipe.steps)
