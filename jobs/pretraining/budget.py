"""Plans the trainings of a study: every combination of tasks, encoders, starts, lengths and seeds."""

from collections.abc import Iterator
from dataclasses import replace

from jobs.config.recipe import PretrainConfig
from jobs.config.start import load_start
from jobs.config.study import SUPERVISED, StudyConfig, TaskEntry
from jobs.pretraining.run import Training, build_model
from ssl_core.data.dataset import open_source
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
    """Yields the options of each task, and the images and their size that it is trained on.

    The reference is trained where there are labels. Where there are none, one that is asked for by its name is yielded
    with the images that are pretrained on, which it then refuses.
    """
    data, size = config.pretrain.data, config.pretrain.size
    for entry in config.tasks:
        places = _labeled(config) if entry.name == SUPERVISED else []
        yield from ((entry.config(), *place) for place in places or [(data, size)])
    if config.supervised and SUPERVISED not in {entry.name for entry in config.tasks}:
        yield from ((TaskEntry(SUPERVISED).config(), *place) for place in _labeled(config))


def _labeled(config: StudyConfig) -> list[tuple[str, int | None]]:
    """Returns the images that the reference is trained on, and their size: those that are pretrained on, or where these
    have no labels, those of each transfer dataset that has."""
    pretrained = config.pretrain.data, config.pretrain.size
    transfers = [(entry.data, entry.size) for entry in config.transfer]
    return [pretrained] if _has_label(*pretrained) else [one for one in transfers if _has_label(*one)]


def _has_label(data: str, size: int | None) -> bool:
    source = open_source(data, size)
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
