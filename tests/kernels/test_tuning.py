"""Configurations of the Triton kernels: which one a launch takes, and that none of them changes a result."""

import itertools
import json
import os
import pathlib
import subprocess
import sys

import pytest
import torch
from triton import Config

from benchmarks import tune
from kernels import registry, tuning

ROOT = pathlib.Path(__file__).parents[2]
DEVICE, CAPABILITY = torch.device("cuda", 0), (7, 5)
CONFIGS = tuple(Config({"SIDE": side}, num_warps=warps) for side, warps in ((32, 2), (32, 4), (64, 8)))
DEFAULT, SMALL, LARGE = map(tuning.describe, CONFIGS)


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Where the table of a made-up GPU lies."""
    monkeypatch.setattr(tuning, "FOLDER", tmp_path)
    monkeypatch.setattr(tuning, "compute_capability", lambda device: CAPABILITY if device == DEVICE else None)
    return tuning.table_path(tmp_path, CAPABILITY)


def entry(size, config, bits=16, channels_last=False, name="turn"):
    return tuning.Entry(name, size, bits, channels_last, config, {"any": 1.0})


def choose(size, dtype=torch.bfloat16, channels_last=False, device=DEVICE):
    return tuning.Tunable("turn", CONFIGS).choose(size, dtype, channels_last, device)


def test_the_default_holds_where_nothing_was_measured(path, capsys):
    assert choose(224) == choose(224, device=None) == choose(224, device=torch.device("cpu")) == DEFAULT
    by_size = tuning.Tunable("turn", CONFIGS, lambda key: 2 if key.size > 100 else 1)
    assert by_size.choose(224, torch.uint8, True, DEVICE) == LARGE
    assert by_size.choose(32, torch.uint8, True, DEVICE) == SMALL
    assert capsys.readouterr().err == ""


def test_the_nearest_size_of_the_same_layout_and_bits_is_taken(path):
    entries = entry(32, SMALL), entry(224, LARGE), entry(96, SMALL, 32), entry(96, LARGE, name="other")
    tuning.save_table(path, {"gpu": "none"}, entries)
    assert [choose(size) for size in (1, 32, 80, 90, 224, 4096)] == [SMALL, SMALL, SMALL, LARGE, LARGE, LARGE]
    assert choose(224, torch.float16) == LARGE and choose(224, torch.float32) == SMALL
    assert choose(224, channels_last=True) == choose(224, torch.uint8) == DEFAULT
    assert choose(32, device=torch.device("cpu")) == DEFAULT
    content = json.loads(path.read_text())
    assert content["machine"] == {"gpu": "none"} and os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version": 2, "entries": []}',
        '{"version": 1, "entries": [{}]}',
        '{"version": 1, "entries": [{"name": "turn", "size": 224, "bits": 16, "channels_last": false, "config": 2}]}',
        '{"version": 1, "entries": 7}',
    ],
)
def test_a_table_that_cannot_be_read_is_ignored_in_one_line(path, text, capsys):
    path.write_text(text)
    assert choose(224) == choose(32) == choose(96, channels_last=True) == DEFAULT
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"tilespin: {path} is ignored (") and line.endswith("benchmarks.tune makes a new one")


def test_a_cut_off_table_is_ignored(path, capsys):
    tuning.save_table(path, {}, [entry(224, LARGE)])
    path.write_text(path.read_text()[:-20])
    assert choose(224) == DEFAULT and capsys.readouterr().err.count("\n") == 1


def test_a_configuration_that_the_kernel_has_no_more_is_ignored_in_one_line(path, capsys):
    tuning.save_table(path, {}, [entry(224, {"num_warps": 16, "SIDE": 32}), entry(32, SMALL, channels_last=True)])
    assert choose(224) == choose(224) == DEFAULT and choose(32, channels_last=True) == SMALL
    (line,) = capsys.readouterr().err.splitlines()
    assert "turn has no configuration {'num_warps': 16, 'SIDE': 32}" in line


def test_what_is_overridden_comes_back():
    tunable = tuning.Tunable("turn", CONFIGS)
    with tuning.override({"turn": CONFIGS[1]}) as asked:
        with tuning.override({"turn": CONFIGS[2]}):
            assert tunable.choose(8, torch.uint8, True) == LARGE
        assert tunable.choose(8, torch.uint8, True) == SMALL
        assert asked["turn"] == (8, 8, True)
    assert tunable.choose(8, torch.uint8, True) == DEFAULT


def test_every_launch_has_a_name_of_its_own_and_several_configurations():
    tunables = [tunable for kernel in registry.kernels() for tunable in kernel.tunables]
    assert len({tunable.name for tunable in tunables}) == len(tunables)
    assert all(len({*map(tuning.label, tunable.configs)}) > 1 for tunable in tunables)


def test_the_tables_that_come_with_the_package_fit_its_kernels(capsys):
    known = {tunable.name: tunable for kernel in registry.kernels() for tunable in kernel.tunables}
    for table in tuning.FOLDER.glob("*.json"):
        for one in tuning.load_table(table):
            assert one.config in map(tuning.describe, known[one.name].configs), (table, one)
    assert capsys.readouterr().err == ""


def test_without_a_gpu_nothing_is_measured(tmp_path):
    command = [sys.executable, "-m", "benchmarks.tune", "--into", str(tmp_path)]
    none = dict(os.environ, CUDA_VISIBLE_DEVICES="")
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=none)
    assert run.returncode == 2 and run.stderr.count("\n") == 1 and "no GPU" in run.stderr
    assert not os.listdir(tmp_path)


def test_a_measurement_that_is_cut_off_keeps_what_it_has(tmp_path, monkeypatch, capsys):
    """With a made-up GPU, whose every measurement takes a second and finds the last configuration twice as fast."""
    clock = itertools.count()

    def measure(kernel, call, timer):
        for tunable in kernel.tunables:
            milliseconds = {tuning.label(config): 2.0 for config in tunable.configs}
            milliseconds[tuning.label(tunable.configs[-1])] = 1.0
            yield tuning.Entry(tunable.name, call, 16, False, tuning.describe(tunable.configs[-1]), milliseconds)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: CAPABILITY)
    monkeypatch.setattr(tune.environment, "describe", lambda: {"gpu": "made up"})
    monkeypatch.setattr(tune.kernel_cases, "make", lambda size, *others: size)
    rows = [tune.kernel_cases.Row(name, lambda size: size, lambda size: 0) for name in ("erase", "photometric")]
    monkeypatch.setattr(tune.kernel_cases, "ROWS", rows)
    monkeypatch.setattr(tune, "measure", measure)
    monkeypatch.setattr(tune.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(sys, "argv", ["tune", "--into", str(tmp_path), "--seconds", "3"])
    assert tune.main() == 0
    (*lines, said, path) = capsys.readouterr().out.splitlines()
    assert said == "out of time: 21 of 24 were not measured and stay as by default"
    entries = tuning.load_table(pathlib.Path(path))
    names = [("erase", 224), ("photometric sums", 224), ("photometric pixels", 224), ("erase", 96)]
    assert [(entry.name, entry.size) for entry in entries] == names
    assert all(" 2.00  " in line for line in lines[1:]) and len(lines) == 1 + len(names)


@pytest.mark.slow
def test_every_configuration_equals_the_reference_and_launches_take_the_fastest(tmp_path):
    environment = dict(os.environ, TRITON_INTERPRET="1", OMP_NUM_THREADS="1", PYTHONPATH=f"{ROOT}:{ROOT}/tests")
    command = [sys.executable, "-m", "support.interpreted_tuning", str(tmp_path)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stderr
    names = [tunable.name for kernel in registry.kernels() for tunable in kernel.tunables]
    assert run.stdout.splitlines() == [*(f"checked {name}" for name in names), "checked the table"]
