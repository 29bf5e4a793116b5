"""A study whose encoders are transferred to images with masks: its table, results.csv and report have mIoU."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from support.comparison import records, three
from support.image_folders import put
from support.masked_folders import put_ade

from jobs import api
from jobs.config.evaluation import Evaluation, TransferEntry, resolve_transfer
from jobs.evaluation.jobs import check_dataset
from jobs.evaluation.records import unpack_draws
from jobs.report.comparison import EncoderRow, by_dataset
from jobs.report.over_datasets import over_datasets
from ssl_core.data.dataset import open_source
from ssl_core.errors import UserError
from ssl_core.storage.records import EvaluationRecord

DENSE = ("segmentation", "invariance", "collapse", "retrieval")


@pytest.fixture
def shapes(tmp_path):
    return put_ade(tmp_path / "shapes", 12, 6)


@pytest.fixture
def pets(tmp_path):
    put(tmp_path / "pets", *(f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(10)))
    return tmp_path / "pets"


def test_masks_take_the_place_of_labels(shapes, pets):
    asked = (
        TransferEntry(str(shapes), 16),
        TransferEntry(str(pets), 16),
        TransferEntry(str(shapes), 24, ("collapse",)),
    )
    entries = resolve_transfer(asked, None, Evaluation().protocols)
    assert [entry.protocols for entry in entries] == [DENSE, (), ("collapse",)]
    assert [entry.protocols for entry in resolve_transfer(asked[:1], None, ("linear", "knn"))] == [("segmentation",)]
    assert [entry.protocols for entry in resolve_transfer(asked[:1], None, ("invariance",))] == [()]
    assert Evaluation().fitted([(str(shapes), 16)]).protocols == DENSE
    assert Evaluation().fitted([(str(pets), 16)]) == Evaluation()


def test_what_lacks_masks_or_labels_is_refused(shapes, pets):
    masked, labeled = open_source(str(shapes), 16), open_source(str(pets), 16)
    with pytest.raises(UserError, match=r"pets has no masks, .*: --protocols attentive .*knn"):
        check_dataset(labeled, Evaluation(protocols=("linear", "segmentation")))
    with pytest.raises(UserError, match=r"shapes has masks and no labels, which linear and knn need: .*segmentation"):
        check_dataset(masked, Evaluation(protocols=("linear", "segmentation", "knn")))
    check_dataset(masked, Evaluation(protocols=DENSE))


def test_datasets_with_labels_are_summarized_beside_one_with_masks():
    def on(dataset: str, protocol: str) -> list[EncoderRow]:
        found = []
        for one in three()[1:]:
            of = records(one.correct("linear")[:1], protocol, dataset)
            if protocol == "segmentation":
                of = tuple(replace(each, numbers={"miou": 0.5}, correct=None) for each in of)
            base = {"linear": three()[0].records["linear"][:1]}
            encoders = (replace(one.one, data=dataset),)
            found.append(replace(one, encoders=encoders, records={protocol: of}, baselines=base))
        return found

    parts = by_dataset([*on("masked", "segmentation"), *on("shapes", "linear"), *on("birds", "linear")])
    summary = over_datasets(parts)
    assert summary and summary.protocol == "linear" and summary.datasets == ("shapes", "birds")
    assert summary.left_out == ("masked has no linear.",)
    assert over_datasets(parts[:2]) is None


@pytest.mark.slow
def test_a_study_of_labels_and_masks(shapes, pets, tmp_path, capsys):
    study = api.study(
        {"tasks": ["rotnet", "context"], "supervised": False, "steps": [2]},
        data=str(shapes),
        size=16,
        transfer=[str(shapes), str(pets)],
        protocols=["linear", "collapse"],
        storage=str(tmp_path),
        name="mixed",
        workers="0",
        wandb="off",
        verbose=True,
    )
    shown = capsys.readouterr().out
    assert "mIoU in %" in shown and "top-1 in %" in shown
    found = [EvaluationRecord.read(path) for path in study.folder.glob("evaluate/*/segmentation-*.json")]
    assert {record.label.split(" ")[0].rsplit("-", 1)[0] for record in found} >= {"rotnet", "context", "random"}
    assert len(found) == 4 and all(record.dataset.name == "shapes" for record in found)
    for record in found:
        drawn = unpack_draws(record)
        assert len(drawn) == 1000 and np.ptp(drawn) > 0 and record.correct is None
        ious = [value for name, value in record.numbers.items() if name.startswith("iou/")]
        assert record.numbers["miou"] == pytest.approx(np.mean(ious)) and len(ious) == 4
    with open(study.folder / "results.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["protocol"] == "segmentation"]
    by = {(row["task"], row["metric"]): row for row in rows}
    of = {record.encoder.task: record for record in found}
    for task, record in of.items():
        row = by[task, "miou"]
        assert float(row["value"]) == record.numbers["miou"] and float(row["low"]) < float(row["high"])
        if task in ("rotnet", "context"):
            gain, base = by[task, "miou/gain-over-random-init"], of["random-init"]
            apart = unpack_draws(record) - unpack_draws(base)
            mean = record.numbers["miou"] - base.numbers["miou"]
            ends = np.quantile(apart - apart.mean() + mean, (0.025, 0.975))
            assert [float(gain[name]) for name in ("value", "low", "high")] == pytest.approx([mean, *ends], abs=1e-6)
    assert any(metric.startswith("miou/over/") and metric.endswith("/p") for _, metric in by)
    report = (study.folder / "report.html").read_text()
    assert "segmentation<br>mIoU" in report and "mean over the classes of intersection over union" in report
    saved = json.loads((study.folder / "study.json").read_text())["evaluation"]["transfer"]
    assert [tuple(entry["protocols"]) for entry in saved] == [("segmentation", "collapse"), ()]
