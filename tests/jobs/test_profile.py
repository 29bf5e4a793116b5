"""`--profile`: what it leaves, and that it costs no training."""

import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent

from jobs.commands.pretrain import main
from jobs.config.recipe import PretrainConfig
from jobs.config.runtime import RuntimeConfig
from jobs.pretraining.profile_table import profile_table
from jobs.pretraining.run import prepare_training
from jobs.pretraining.step_profile import SUMMARY, TRACE
from jobs.pretraining.worker import iter_metrics
from jobs.study.folder import Study
from ssl_core.errors import UserError
from ssl_core.step_parts import PARTS, PREFIX, fetched, part
from ssl_core.storage.records import EncoderRecord
from ssl_core.tasks.rotnet import RotNet


def event(name: str, start: float, end: float, device: DeviceType = DeviceType.CPU, **more) -> FunctionEvent:
    return FunctionEvent(0, name, 0, start, end, device_type=device, **more)


def numbers(table: str) -> dict[str, tuple[float, float]]:
    """-> milliseconds a step and percent of each line, by its name."""
    rows = [line.split(" ms") for line in table.splitlines() if line.startswith("  ")]
    return {" ".join(row[0].split()[:-1]): (float(row[0].split()[-1]), float(row[1].split("%")[0])) for row in rows}


def test_a_table_adds_up_parts_and_covers_what_streams_share():
    """Of two steps of 10 ms: 4 + 2 ms forward, 8 ms backward; kernels from 0 to 3 and 2 to 6 ms cover six of 20."""
    gpu = DeviceType.CUDA
    events = [
        *(event(PREFIX + "forward", *span) for span in ((0, 4000), (10_000, 12_000))),
        event(PREFIX + "backward", 4000, 12_000),
        event("aten::conv2d", 0, 4000),
        event("cudaStreamSynchronize", 5000, 6000),
        event("kernel", 0, 3000, gpu),
        event("kernel", 2000, 6000, gpu),
        event(PREFIX + "forward", 0, 20_000, gpu, is_user_annotation=True),
    ]
    found = numbers(profile_table(events, 2, 0.020))
    assert found["forward"] == (3, 30) and found["backward"] == (4, 40) and found["data"] == (0, 0)
    assert found["other"] == (3, 30) and found["waiting"] == (0.5, 5) and found["GPU busy"] == (3, 30)
    assert numbers(profile_table(events[:5], 2, 0.020)).keys() == {*PARTS, "other"} - {"replay"}


def test_nothing_is_marked_while_nothing_is_profiled():
    assert part("data") is part("task") and list(fetched(iter([1, 2]))) == [1, 2]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        assert part("data") is not part("data") and list(fetched(iter([1, 2]))) == [1, 2]
    assert sum(one.name == PREFIX + "data" for one in found.events()) == 3  # two, and the end


def trained(shapes: Path, storage: Path, *more) -> Path:
    """-> the run's folder."""
    arguments = ["--data", shapes, "--size", 32, "--batch", 8, "--storage", storage, *more]
    main(["rotnet", *map(str, arguments), "--wandb", "off"])
    (folder,) = storage.glob("*/pretrain/*")
    return folder


def names(folder: Path) -> Counter:
    """-> how often each name is in a run's trace."""
    with gzip.open(folder / TRACE) as file:
        return Counter(one["name"] for one in json.load(file)["traceEvents"])


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "parts", "expected"), [(14, 2, 3), (2, 1, 2)])
def test_it_leaves_a_trace_and_a_table_and_the_same_run(steps, parts, expected, shapes, tmp_path, capsys):
    """Also of a run of fewer steps than are asked for and are passed over."""
    more = ("--steps", steps, "--grad-accumulation", parts)
    alone = trained(shapes, tmp_path / "alone", *more)
    assert not (alone / TRACE).exists() and PREFIX not in capsys.readouterr().out
    folder = trained(shapes, tmp_path / "profiled", *more, "--profile", 3)
    digests = [EncoderRecord.read(one / "encoder.json").digest for one in (alone, folder)]
    assert folder.name == alone.name and digests[0] == digests[1]
    found = names(folder)
    assert found[PREFIX + "optimizer"] == found[PREFIX + "task"] == expected
    assert found[PREFIX + "forward"] == found[PREFIX + "backward"] == parts * expected
    table = (folder / SUMMARY).read_text()
    assert table.startswith(f"{expected} steps") and table in capsys.readouterr().out
    shares = [share for _, share in numbers(table).values()]
    assert sum(shares) == pytest.approx(100, abs=1) and numbers(table)["backward"][1] > 5


@pytest.mark.slow
def test_a_profile_that_cannot_be_written_costs_nothing(shapes, tmp_path, capsys):
    """A file lies where its folder should be, and then another profiler is at work."""
    recipe = PretrainConfig(task=RotNet.Config(batch=8), data=str(shapes), size=32, steps=2)
    training = prepare_training(recipe, Study(str(tmp_path / shapes.name)), RuntimeConfig(wandb="off"))
    training.folder.mkdir(parents=True)
    (training.folder / "profile").write_text("in the way")
    folder = trained(shapes, tmp_path, "--steps", 2, "--profile", 1)
    assert (folder / "encoder.json").exists() and (folder / "profile").read_text() == "in the way"
    assert "not profiled" in capsys.readouterr().err
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        folder = trained(shapes, tmp_path / "twice", "--steps", 2, "--profile", 1)
    assert (folder / "encoder.json").exists()


@pytest.mark.slow
def test_a_training_that_is_closed_early_leaves_no_profiler_at_work(shapes, tmp_path):
    recipe = PretrainConfig(task=RotNet.Config(batch=8), data=str(shapes), size=32, steps=40)
    study = Study(str(tmp_path / "s"))
    study.describe()
    training = prepare_training(recipe, study, RuntimeConfig(wandb="off"))
    rows = iter_metrics(replace(training, profile=30), "cpu")
    assert next(rows)["step"] == 20 and torch.autograd._profiler_enabled()
    rows.close()
    assert not torch.autograd._profiler_enabled() and not (training.folder / TRACE).exists()


@pytest.mark.parametrize("steps", [-1, 101])
def test_a_number_of_steps_that_is_none_is_refused(steps, shapes, tmp_path):
    with pytest.raises(UserError, match="--profile is"):
        trained(shapes, tmp_path, "--profile", steps)
