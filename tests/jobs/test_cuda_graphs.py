"""`--cuda-graphs` as a user meets it: the same run on a CPU, with one line that none was used, and what is refused."""

import json

import pytest
import torch

from jobs.commands.pretrain import main
from jobs.config.recipe import PretrainConfig
from jobs.config.runtime import RuntimeConfig
from jobs.pretraining.memory_advice import out_of_memory_advice
from jobs.pretraining.profile_table import profile_table
from jobs.pretraining.run import prepare_training
from jobs.study.folder import Study
from ssl_core.errors import UserError
from ssl_core.step_parts import part
from ssl_core.tasks.rotnet import RotNet

pytestmark = pytest.mark.slow


def test_without_a_gpu_it_is_the_same_run_with_the_same_weights(shapes, tmp_path, capsys):
    """One that stopped without it would go on with it: names and digests are equal."""
    digests = {}
    for storage, more in (("off", []), ("auto", ["--cuda-graphs", "auto", "--device", "cpu"])):
        arguments = ["--data", shapes, "--size", 32, "--steps", 3, "--batch", 8, "--storage", tmp_path / storage]
        main(["rotnet", *map(str, arguments), "--wandb", "off", *more])
        (record,) = (tmp_path / storage).glob("*/pretrain/*/encoder.json")
        digests[record.parent.name] = {*digests.get(record.parent.name, ()), json.loads(record.read_text())["digest"]}
        assert capsys.readouterr().err.count(": no CUDA graph: a CPU has none") == (storage == "auto")
    assert len(digests) == 1 and all(len(found) == 1 for found in digests.values())


@pytest.mark.parametrize("mode", ["off", "auto"])
def test_it_reaches_the_training_loop(mode, shapes, tmp_path):
    recipe = PretrainConfig(task=RotNet.Config(batch=8), data=str(shapes), size=32)
    training = prepare_training(recipe, Study(str(tmp_path / "s")), RuntimeConfig(wandb="off", cuda_graphs=mode))
    assert training.train_config.cuda_graphs == mode
    advice = out_of_memory_advice(training, torch.OutOfMemoryError("CUDA out of memory."))
    assert ("--cuda-graphs off" in advice) == (mode == "auto")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--device cpu", "a CPU has none"),
        ("--device cuda --workers 1:2", "several workers exchange gradients within a step"),
        ("--device cuda --workers 1 --optimizer lars", "--optimizer lars cannot be captured"),
        ("--device cuda --workers 1 --activation-checkpointing", "--activation-checkpointing reads"),
    ],
)
def test_what_cannot_be_captured_is_refused_in_one_line(words, message, shapes, tmp_path):
    arguments = ["--data", shapes, "--size", 32, "--storage", tmp_path, "--wandb", "off", *words.split()]
    with pytest.raises(UserError, match=f"--cuda-graphs on: {message}") as refused:
        main(["rotnet", *map(str, arguments), "--cuda-graphs", "on"])
    assert "\n" not in str(refused.value) and not list(tmp_path.iterdir())


def test_a_table_has_a_line_for_replays_if_there_were_any():
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler, part("replay"):
        torch.ones(3).sum()
    events = list(profiler.events() or ())
    assert "as a CUDA graph" in profile_table(events, 1, 1.0)
    assert "as a CUDA graph" not in profile_table([one for one in events if "replay" not in one.name], 1, 1.0)
