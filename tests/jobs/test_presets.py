"""Every preset is a complete study that can be built."""

import pytest

from jobs.config.presets import PRESETS
from ssl_core.encoders.build import build, describe
from ssl_core.task import DataInfo, task_name, tasks


@pytest.mark.parametrize("name", PRESETS)
def test_preset_builds(name):
    config = PRESETS[name]
    config.evaluation.check()
    size = config.size or 32
    info = describe(build(config.encoder, size, config.seed), config.encoder, size)
    names = [task_name(task) for task in config.tasks]
    assert names and len(set(names)) == len(names)
    for task in config.tasks:
        tasks()[task_name(task)](task, info, DataInfo(size, classes=10, images=50_000))


def test_a_preset_holds_every_task():
    """A built-in task that all forget would never be compared; multi is several of the others."""
    assert {task_name(task) for task in PRESETS["full"].tasks} == set(tasks()) - {"multi"}
    assert {task_name(task) for task in PRESETS["demo"].tasks} == {"rotnet", "jigsaw", "context", "supervised"}
