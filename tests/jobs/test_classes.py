"""How well each class is recognized: from the confusion matrices of the records."""

from dataclasses import replace

import numpy as np
import pytest
import vl_convert
from support.comparison import N, row

from jobs.report.classes import MOST_ROWS, class_accuracies, confusion
from jobs.report.comparison import EncoderRow, by_dataset
from jobs.report.terminal import accuracy_table
from ssl_core.evaluation.metrics import confusion_counts

NAMES = ("ring", "row", "grid </script>", "ring", "empty")


def answered(task: str, predicted: np.ndarray, labels: np.ndarray, names: tuple[str, ...] = NAMES) -> EncoderRow:
    """A row with the answers of its seeds, [seeds, N], to images with these labels."""
    one = row(task, predicted == labels)
    given = tuple(
        replace(
            record,
            confusion=confusion_counts(of, labels),
            dataset=replace(record.dataset, classes=len(names), class_names=names),
        )
        for record, of in zip(one.records["linear"], predicted)
    )
    return replace(one, records={"linear": given})


@pytest.fixture
def rows() -> list[EncoderRow]:
    """Two seeds; classes of unlike sizes, of which the last has no test image."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), [200, 120, 60, 20])
    return [
        answered(task, np.where(rng.random((2, N)) < right, labels, rng.integers(0, 5, (2, N))), labels)
        for task, right in (("rotnet", 0.3), ("jigsaw", 0.7))
    ]


def test_shares_are_means_over_seeds_the_worst_class_first(rows):
    found = class_accuracies(rows, "linear")
    assert found and found.encoders == tuple(rows) and not found.left_out
    names = ["ring (0)", "row", "grid </script>", "ring (3)"]
    assert sorted(found.classes) == sorted(names) and "empty" not in found.classes
    assert dict(zip(found.classes, found.images)) == dict(zip(names, (200, 120, 60, 20)))
    assert (np.diff(found.shares.mean(1)) >= 0).all()
    for column, one in enumerate(rows):
        for place, name in enumerate(found.classes):
            label = names.index(name)
            right = [
                sum(count for true, answer, count in record.confusion if true == answer == label)
                for record in one.records["linear"]
            ]
            assert found.shares[place, column] == pytest.approx(np.mean(right) / found.images[place])


def test_the_confusion_matrix_has_shares_of_each_class(rows, capfd):
    spec = confusion(rows[1], "linear")
    assert spec
    values = spec["data"]["values"]
    assert len(values) == 4 * 5
    for label in {one["label"] for one in values}:
        assert sum(one["share"] for one in values if one["label"] == label) == pytest.approx(100)
    records = rows[1].records["linear"]
    (one,) = [one for one in values if (one["label"], one["answer"]) == ("row", "ring (0)")]
    counts = [count for record in records for true, answer, count in record.confusion if (true, answer) == (1, 0)]
    assert one["share"] == pytest.approx(100 * sum(counts) / 240) and one["shown"].endswith(" % of 240")
    drawn = vl_convert.vegalite_to_svg({**spec, "width": 600}, show_warnings=True)
    assert "ring (3)" in drawn and "WARN" not in "".join(capfd.readouterr())


def test_of_many_classes_the_worst_are_shown():
    count = MOST_ROWS + 10
    labels = np.arange(N) % count
    predicted = np.where(labels < 10, labels, (labels + 1) % count)[None]
    one = answered("rotnet", predicted, labels, tuple(f"class {i}" for i in range(count)))
    found = class_accuracies([one], "linear")
    assert found and len(found.classes) == MOST_ROWS and found.left_out == 10
    assert not found.shares.any() and confusion(one, "linear") is None


def test_without_answers_there_is_nothing_to_show(rows):
    bare = row("rotnet", np.ones((1, N), bool))
    assert class_accuracies([bare], "linear") is None and confusion(bare, "linear") is None
    both = class_accuracies([bare, *rows], "linear")
    assert both and both.encoders == tuple(rows)


def test_the_terminal_has_balanced_accuracies_where_classes_are_unequal():
    """As the report always has."""
    labels = np.arange(N) % 4

    def headers(right: np.ndarray, balanced: float) -> list[str]:
        one = answered("rotnet", np.where(right, labels, 4)[None], labels)
        (record,) = one.records["linear"]
        one = replace(
            one, records={"linear": (replace(record, numbers={**record.numbers, "top1/balanced": balanced}),)}
        )
        table = accuracy_table(by_dataset([one])[0], ("linear",))
        return [str(column.header) for column in table.columns]

    half = labels < 2
    assert "balanced" not in headers(half, 0.5) and "balanced" in headers(half, 0.625)
