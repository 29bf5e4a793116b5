"""The kernel benchmark: a row for every kernel, peers that give the right answer, a result that says what it is."""

import importlib.util
import json
import pathlib

import pytest
import torch
from support.command import run_forked

from benchmarks import kernels as benchmark
from benchmarks import peers
from benchmarks.harness import kernel_cases
from kernels import registry

ROOT = pathlib.Path(__file__).parents[2]
# kornia does not antialias; DALI's filter that shrinks is another one, by up to six gray levels in noise
WRONG = {("kornia", "crop_flip"), ("dali", "multi_crop")}


def test_every_kernel_has_a_row():
    assert {row.name for row in kernel_cases.ROWS} == {kernel.name for kernel in registry.kernels()}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("name", "rows"), [("torch_eager", 8), ("torchvision_v2", 5), ("kornia", 5), ("dali", 6), ("launch_a_size", 1)]
)
def test_peers_do_the_same_work(name, rows, channels_last):
    package = {"kornia": "kornia", "dali": "nvidia.dali"}.get(name)
    if package and not _there(package):
        pytest.skip(f"{package} is not installed")
    found = {name: peers.installed()[0][name]}
    w = kernel_cases.make(32, 6, "cpu", torch.float32, channels_last)
    compared = 0
    for row in kernel_cases.ROWS:
        expected = benchmark.several(row.prepare(w)())
        _, off = benchmark.others(row, w, found, expected)
        for value in off.values():
            assert (value <= row.tolerance) != ((name, row.name) in WRONG), (row.name, value)
            compared += 1
    assert compared == rows


def _there(package):
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def test_a_wrong_peer_is_seen():
    w = kernel_cases.make(16, 4, "cpu", torch.float32, False)
    row = kernel_cases.ROWS[0]
    result = row.prepare(w)()
    assert benchmark.difference([result.flip(3)], [result]) > row.tolerance
    assert benchmark.difference([result[:3]], [result]) == float("inf")


def test_like_is_compared_with_like():
    """A GPU's own time with another's, launches and all with launches and all."""
    wall = {"tilespin": {"p50": 3.0}, "captured": {"p50": 9.0}, "not captured": {"p50": 6.0}}
    device = {"tilespin": {"cold": {"p50": 1.0}}, "captured": {"cold": {"p50": 4.0}}, "not captured": {}}
    line = {"ms": wall, "device_ms": device}
    assert benchmark.ratio(line, "captured") == 4 and benchmark.ratio(line, "not captured") == 2
    assert benchmark.ratio(line, "absent") is None
    assert benchmark.ratio({"ms": wall}, "captured") == 3
    assert benchmark.ratio({"ms": wall, "device_ms": {**device, "tilespin": {}}}, "captured") == 3


@pytest.mark.slow
def test_it_runs_and_says_what_it_measured(tmp_path):
    arguments = [
        "--shapes",
        "16x3",
        "--seconds",
        "0.1",
        "--threads",
        "1",
        "--peers",
        "torch_eager",
        "--device",
        "cpu",
        "--into",
    ]
    run = run_forked(*arguments, tmp_path, module="benchmarks.kernels")
    run.check_returncode()
    (path,) = tmp_path.glob("*.json")
    result = json.loads(path.read_text())
    assert len(result["lines"]) == 2 * len(kernel_cases.ROWS)
    assert {"cpu", "torch", "triton", "commit", "date", "threads"} <= result["machine"].keys()
    for line in result["lines"]:
        assert all(0 < times["p20"] <= times["p50"] <= times["p80"] for times in line["ms"].values())
        assert line["bytes"] > 0 and all(line["right"].values())
    assert path.with_suffix(".svg").read_text().startswith("<?xml")
    assert all(row.name in run.stdout for row in kernel_cases.ROWS)
