"""Every built-in study is complete and can be built."""

import pytest

from jobs.commands.study import Options
from jobs.config.parsing import parse
from jobs.config.presets import preset_files
from jobs.config.study import StudyConfig
from ssl_core.encoders.build import build, describe
from ssl_core.task import DataInfo, task_name, tasks


def preset(name: str) -> StudyConfig:
    options = parse(Options, "study", [name])
    assert options.runtime.name == name
    options.evaluation.check()
    return options.study


@pytest.mark.parametrize("name", preset_files())
def test_preset_builds(name):
    config = preset(name)
    config.check()
    size = config.pretrain.size or 32
    for encoder in config.encoders:
        info = describe(build(encoder, size, config.seed), encoder, size)
        for one in (entry.config() for entry in config.tasks):
            tasks()[task_name(one)](one, info, DataInfo(size, classes=10, images=50_000))


def test_a_preset_holds_every_task():
    """A built-in task that all forget would never be compared; multi is several of the others."""
    every = {one.name for name in ("full", "vit") for one in preset(name).tasks}
    assert every == set(tasks()) - {"multi", "supervised"}
    assert [one.name for one in preset("demo").tasks] == ["rotnet", "jigsaw", "context"]
    assert preset("full").supervised and preset("demo").supervised
