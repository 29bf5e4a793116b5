"""The Python interface: the command line's work, quietly, with exceptions, and with encoders of any kind."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.command import ROOT, environment
from torch import nn

import tilespin
from jobs.study.folder import Study
from ssl_core.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory) -> tilespin.Run:
    storage = tmp_path_factory.mktemp("runs")
    return pretrain(shapes, storage)


def pretrain(shapes: Path, storage: Path) -> tilespin.Run:
    options = dict(name="one", size=32, steps=20, batch=16, lr=0.03, wandb="off", decode_threads=1, workers="0")
    return tilespin.pretrain("rotnet", shapes, storage=storage, **options)


def test_a_run_has_its_record_its_metrics_and_its_encoder(run):
    record = run.record
    assert (record.training.task, record.training.steps, record.encoder) == ("rotnet", 20, "convnet")
    assert run.metrics()[-1]["step"] == 20 and np.isfinite(run.metrics()[-1]["loss"])
    maps = run.encoder()(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert [one.shape[:2] for one in maps] == [(2, width) for width in (one.shape[1] for one in maps)]
    assert all(one.dtype == torch.float32 and one.isfinite().all() for one in maps)


def test_features_of_a_run_are_its_encoder_s(run, shapes, tmp_path):
    """In a file, with the batch-norm statistics that training left: of each stage the mean over all places."""
    from PIL import Image
    from pyarrow import parquet

    file = tilespin.embed(run, shapes, output=tmp_path / "f.parquet", size=32, stage=2, split="test", workers=0)
    rows = parquet.read_table(file).to_pylist()[:8]
    images = np.stack([np.array(Image.open(row["path"])) for row in rows])
    with torch.no_grad():
        maps = run.encoder()(torch.from_numpy(images).permute(0, 3, 1, 2))
    wanted = maps[1].mean((2, 3)).numpy()
    np.testing.assert_allclose([row["features"] for row in rows], wanted, rtol=1e-4, atol=1e-5)


def test_the_same_call_returns_the_finished_run_and_prints_nothing(run, shapes, capfd):
    before = (run.folder / "encoder.safetensors").stat().st_mtime_ns
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    again = pretrain(shapes, run.folder.parents[2])
    assert again == run and (run.folder / "encoder.safetensors").stat().st_mtime_ns == before
    assert capfd.readouterr() == ("", "")
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(task="rotnt"), "did you mean rotnet"),
        (dict(stepz=3), "no option stepz: did you mean steps"),
        (dict(steps="many"), 'steps is "many", expected'),
        (dict(steps=5, epochs=1.0), "both given"),
        (dict(data="/gone"), "no such folder"),
    ],
)
def test_what_is_wrong_is_an_exception(shapes, tmp_path, options, said):
    given = dict(task="rotnet", data=shapes, storage=tmp_path) | options
    with pytest.raises(UserError, match=said):
        tilespin.pretrain(**given)


class Halves(nn.Module):
    """The mean color of the upper and of the lower half: a vector, not a map."""

    def forward(self, images):
        return torch.cat([half.mean((2, 3)) for half in images.chunk(2, dim=2)], dim=1)


def test_runs_files_and_networks_are_evaluated_alike(run, shapes):
    network = Halves()
    for encoder in (run, str(run.folder), "timm:test_resnet=random", network):
        found = tilespin.evaluate(encoder, shapes, protocols=["knn", "invariance"], size=32, decode_threads=1)
        assert list(found) == ["knn", "invariance"] and 0 <= found["knn"].numbers["top1"] <= 1
        assert len(found.to_pandas()) == sum(len(one.numbers) for one in found.values())
    with pytest.raises(TypeError, match="expected"):
        tilespin.evaluate(nn.Flatten(0), shapes, protocols=["knn"], size=32, decode_threads=1)
    with pytest.raises(UserError, match="no labels"):
        tilespin.evaluate(network, unlabeled(shapes, run.folder), protocols=["knn"], size=32)


def unlabeled(shapes: Path, folder: Path) -> Path:
    place = folder / "flat"
    place.mkdir(exist_ok=True)
    for path in shapes.glob("rows/*.png"):
        (place / path.name).write_bytes(path.read_bytes())
    return place


def test_a_run_is_evaluated_as_in_its_study(run, shapes):
    """The numbers are those that `tilespin evaluate` has of it."""
    from jobs.commands.evaluate import main
    from jobs.config.evaluation import Evaluation
    from jobs.evaluation.external import list_encoders
    from jobs.evaluation.records import current_records

    study = run.folder.parents[1]
    main([str(study), "--protocols", "knn", "linear", "--wandb", "off", "--decode-threads", "1"])
    kept = Study(study)
    (one,) = list_encoders(kept)
    record = current_records(kept, [one], Evaluation.of_study(kept))[one]["linear"]
    mine = tilespin.evaluate(run, shapes, protocols=["linear"], size=32, decode_threads=1)["linear"]
    assert mine.numbers == record.numbers and mine.correct == record.correct
    table = tilespin.compare(study, wandb="off")
    assert {row["task"] for row in table.rows()} == {"rotnet", "random-init", "raw-pixels"}
    assert table.report.exists() and len(table.to_pandas()) == len(table.rows())


def test_lists_name_what_there_is():
    assert {"rotnet", "jigsaw", "context", "pirl"} <= set(tilespin.list_tasks())
    assert {"linear", "knn", "invariance"} <= set(tilespin.list_protocols())
    assert "convnet" in tilespin.list_encoders() and "resnet18" in tilespin.list_encoders("resnet*")
    assert all("mobile" in name for name in tilespin.list_encoders("mobile"))


def test_importing_it_imports_neither_torch_nor_ray():
    check = (
        "import tilespin, sys; assert not {'torch', 'ray', 'wandb', 'numpy'} & set(sys.modules); print(dir(tilespin))"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0 and "'pretrain'" in done.stdout, done.stderr


def test_a_package_of_the_same_name_in_its_place_is_named(tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").write_text("")
    check = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import tilespin; tilespin.pretrain"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, env=environment(), capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode and f"{tmp_path}/jobs is imported in its place" in last
