"""A study from pretraining to its report of each kind of dataset, and its numbers against scikit-learn's.

What the test knows of an image it finds by the image's pixels, whatever the dataset made of files and rows.
"""

import io

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix
from support import dataset_layouts as layouts
from support.dataset_layouts import Picture
from support.independent_probes import Stage, expected_numbers, knn_scores, linear_scores, stage_features
from support.s3_server import s3_server

from jobs.api import Run, load_encoder
from jobs.api import study as run_study
from jobs.evaluation.records import unpack_bits, unpack_draws
from jobs.tracking import offline_runs
from ssl_core.data.dataset import Source, open_source
from ssl_core.data.split import Split
from ssl_core.evaluation.frozen_encoder import Splits, make_splits
from ssl_core.storage.records import EvaluationRecord
from ssl_core.tasks.rotnet import RotNet

STEPS, BATCH = 2, 36  # an epoch, where all images are trained on that are not test images
EACH = {"train": 12, "test": 6, "unlabeled": 6}  # of each of four textures


@pytest.fixture(scope="module")
def pictures(shapes) -> list[Picture]:
    """Of four classes, in so much noise that not all answers are right; no two images are equal."""
    found, rng = [], np.random.default_rng(0)
    for folder in sorted(shapes.iterdir()):
        files = iter(sorted(folder.iterdir()))
        for split, count in EACH.items():
            for _ in range(count):
                noise = rng.integers(0, 256, (32, 32, 3))
                pixels = (0.2 * np.array(Image.open(next(files))) + 0.8 * noise).astype(np.uint8)
                found.append(Picture(pixels, () if split == "unlabeled" else (folder.name,), split))
    return found


@pytest.fixture
def tagged(pictures) -> list[Picture]:
    """The same, but of several labels an image: its texture, where that is not "rows", and whether it is dark."""
    middle = np.median([one.pixels.mean() for one in pictures])

    def labels(one: Picture) -> tuple[str, ...]:
        shade = "dark" if one.pixels.mean() < middle else "light"
        return (*(label for label in one.labels if label != "rows"), shade)

    return [one._replace(labels=() if one.split == "unlabeled" else labels(one)) for one in pictures]


@pytest.fixture
def s3(monkeypatch):
    with s3_server() as settings:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        fsspec.filesystem("s3").mkdir("bucket")
        yield


@pytest.fixture
def trained_on(monkeypatch) -> list[int]:
    """Gets the rows of all images that a pretext task makes batches of."""
    rows: list[int] = []
    make = RotNet.make_batch

    def noted(self, batch, *rest):
        if len(batch.ids) == BATCH:  # not those of the picture of a few samples
            rows.extend(batch.ids.tolist())
        return make(self, batch, *rest)

    monkeypatch.setattr(RotNet, "make_batch", noted)
    return rows


class Known:
    """What the test knows of the images of a dataset.

    Attributes:
        classes: The names of all classes.
    """

    def __init__(self, pictures: list[Picture]):
        self.of = {one.pixels.tobytes(): one for one in pictures}
        self.classes = sorted({label for one in pictures for label in one.labels})
        assert len(self.of) == len(pictures)

    def look_up(self, split: Split, rows) -> list[Picture]:
        read = (np.array(Image.open(io.BytesIO(split.open(int(i)).read()))) for i in rows)
        return [self.of[pixels.tobytes()] for pixels in read]

    def labels(self, pictures: list[Picture]) -> np.ndarray:
        return np.array([[name in one.labels for name in self.classes] for one in pictures])


@pytest.mark.slow
@pytest.mark.parametrize(
    "write",
    [
        layouts.stl10,
        layouts.class_folders,
        layouts.csv_table,
        layouts.parquet,
        pytest.param(layouts.on_s3(layouts.parquet), id="parquet_on_s3", marks=pytest.mark.network),
        layouts.several_labels,
        layouts.tars,
    ],
)
def test_a_study_and_its_numbers(write, pictures, tagged, trained_on, tmp_path, request, monkeypatch):
    monkeypatch.setenv("TILESPIN_CACHE", str(tmp_path / "cache"))
    if "network" in {mark.name for mark in request.node.iter_markers()}:
        request.getfixturevalue("s3")
    several = write is layouts.several_labels
    known = Known(tagged if several else pictures)
    data = write(tmp_path / "textures", list(known.of.values()))
    study = run_study(
        pretrain={"data": data, "size": 32},
        tasks=[{"name": "rotnet", "batch": BATCH}],
        steps=[STEPS],
        encoders=["convnet-plain"],
        supervised=False,
        evaluation={"protocols": ["linear", "knn"], "num_labels": 0},
        runtime={"workers": "0", "wandb": "off", "storage": str(tmp_path / "runs"), "decode_threads": 1},
    )
    source = open_source(data, 32)
    assert list(source.classes) == known.classes and source.multilabel == several
    check_pretraining(source, known, trained_on, write is not layouts.class_folders)
    records = [EvaluationRecord.read(path) for path in study.folder.glob("evaluate/*/*.json")]
    assert {(one.encoder.task, one.protocol.name) for one in records} == {
        (task, protocol) for task in ("raw-pixels", "random-init", "rotnet") for protocol in ("linear", "knn")
    }
    (run,) = (Run(path.parent) for path in study.folder.glob("pretrain/*/encoder.json"))
    for record in (one for one in records if one.encoder.task == "rotnet"):
        check_record(record, source, known, load_encoder(run), several)
    assert any(0 < record.numbers["map" if several else "top1"] < 1 for record in records)
    check_table(study.rows(), records)
    assert "rotnet" in study.report.read_text()


@pytest.mark.slow
def test_columns_of_one_table_are_datasets_of_their_own(pictures, tmp_path):
    """They have names of their own in the table, in the report and in W&B."""
    data = layouts.csv_table(tmp_path / "textures", pictures)
    columns = (data, data.replace("#kind", "#photographer"))
    study = run_study(
        pretrain={"data": data, "size": 32},
        tasks=["rotnet"],
        steps=[STEPS],
        encoders=["convnet-plain"],
        supervised=False,
        transfer=[{"data": column} for column in columns],
        evaluation={"protocols": ["knn"], "num_labels": 0},
        runtime={"workers": "0", "wandb": "offline", "storage": str(tmp_path / "runs"), "decode_threads": 1},
    )
    names = {"textures#kind", "textures#photographer"}
    assert {row["dataset"] for row in study.rows()} - {"2 datasets"} == names
    report = study.report.read_text()
    assert all(name in report for name in names)
    tracked = {
        tuple(key.split("/")[:2])
        for file in study.folder.glob("wandb/offline-run-*/run-*.wandb")
        for record, _ in offline_runs.records(file.read_bytes())
        for item in offline_runs._parse(record).history.item
        if (key := item.key or ".".join(item.nested_key)).startswith("eval/")
    }
    assert tracked == {("eval", name) for name in names}


def check_pretraining(source: Source, known: Known, rows: list[int], splits_given: bool) -> None:
    """Each image was met once that is not a test image, those without labels among them."""
    assert sorted(rows) == list(range(len(source.train))) if splits_given else len(set(rows)) == STEPS * BATCH
    learned = known.look_up(source.train, range(len(source.train)))
    tested = known.look_up(source.test, range(len(source.test)))
    assert len(learned) + len(tested) == len(known.of) == len({one.pixels.tobytes() for one in learned + tested})
    assert sum(one.split == "unlabeled" for one in learned) == 4 * EACH["unlabeled"]
    if splits_given:
        assert {one.split for one in tested} == {"test"}


def check_record(
    record: EvaluationRecord, source: Source, known: Known, encoder: torch.nn.Module, several: bool
) -> None:
    """The record's numbers, answers and choice are those that other code has of the same images."""
    _, parts = make_splits(source, Splits(num_labels=0), 0)
    found = {split: known.look_up(getattr(source, part), rows) for split, (part, rows) in parts.items()}
    assert all(one.labels for of in found.values() for one in of), "only labeled images are evaluated on"
    assert record.dataset.images == {split: len(of) for split, of in found.items()}
    labels = {split: known.labels(of) for split, of in found.items()}
    stages = stage_features(encoder, {split: np.stack([one.pixels for one in of]) for split, of in found.items()})
    chosen = stages[record.chosen["stage"] - 1]
    scores = scores_of(record, chosen, labels["train"], "test", several)
    wanted = expected_numbers(scores, labels["test"], several)
    assert {name: record.numbers[name] for name in wanted} == pytest.approx(wanted, abs=1e-6)
    held_out = expected_numbers(scores_of(record, chosen, labels["train"], "val", several), labels["val"], several)
    assert record.chosen["val_score"] == pytest.approx(next(iter(held_out.values())), abs=1e-6)
    if several:
        assert record.correct is None and not record.confusion and "top1" not in record.numbers
        drawn = np.random.default_rng(0).multinomial(len(scores), np.full(len(scores), 1 / len(scores)), size=20)
        again = [np.repeat(np.arange(len(scores)), counts) for counts in drawn]
        whole = [rows for rows in again if labels["test"][rows].any(0).all()]  # of images of every class
        maps = [expected_numbers(scores[rows], labels["test"][rows], several)["map"] for rows in whole]
        found = unpack_draws(record)[:20][[labels["test"][rows].any(0).all() for rows in again]]
        assert len(maps) > 3 and found == pytest.approx(maps, abs=1e-6)
        return
    truth, answers = labels["test"].argmax(1), scores.argmax(1)
    assert unpack_bits(record).tolist() == (truth == answers).tolist()
    cells = np.zeros((len(known.classes),) * 2, int)
    for label, answer, count in record.confusion:
        cells[label, answer] = count
    assert cells.tolist() == confusion_matrix(truth, answers, labels=range(len(known.classes))).tolist()


def scores_of(record: EvaluationRecord, stage: Stage, labels: np.ndarray, split: str, several: bool) -> np.ndarray:
    """Other code's scores of the images of a split, by what the record says was chosen."""
    if record.protocol.name == "knn":
        return knn_scores(stage, labels, split, record.chosen["k"])
    return linear_scores(stage, labels, split, record.chosen["learning_rate"], several)


def check_table(rows: list[dict[str, str]], records: list[EvaluationRecord]) -> None:
    """results.csv has each number of each record."""
    table = {(row["task"], row["protocol"], row["metric"]): row for row in rows}
    assert len(table) == len(rows)
    for record in records:
        for metric, value in record.numbers.items():
            row = table[record.encoder.task, record.protocol.name, metric]
            assert float(row["value"]) == value and row["dataset"] == record.dataset.name
        measure = next(iter({"top1", "map"} & {*record.numbers}))
        row = table[record.encoder.task, record.protocol.name, measure]
        low, value, high = (float(row[key]) for key in ("low", "value", "high"))
        assert 0 <= low <= value <= high <= 1 and low < high
        if record.encoder.task == "rotnet":
            gain = table["rotnet", record.protocol.name, f"{measure}/gain-over-random-init"]
            assert float(gain["low"]) <= float(gain["value"]) <= float(gain["high"])
