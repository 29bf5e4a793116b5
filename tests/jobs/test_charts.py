"""The report's charts: Vega-Lite compiles each, without a warning, and its data are the rows' numbers."""

from dataclasses import replace

import numpy as np
import pytest
import vl_convert
from support.comparison import N, records, row, three

from jobs.report import charts
from jobs.report import representation_charts as representation
from jobs.report.chart_parts import Spec
from jobs.report.chart_style import Marks
from jobs.report.comparison import EncoderRow
from jobs.report.over_datasets import OverDatasets
from ssl_core.evaluation.over_datasets import Summary

pytestmark = pytest.mark.slow

NUMBERS = {
    "invariance": {"rotation": 0.5, "crop": 0.25, "rotation/stage1": 0.1, "rotation/stage2": 0.5, "alignment": 1.0},
    "equivariance": {"rotation": 0.75, "crop": 0.6, "crop/0.5": 0.7, "r2/hue": -0.1, "r2/hue/stage1": 0.2},
    "semantic_similarity": {
        **{"purity@20": 0.4, "purity@1": 0.5, "purity@20/stage1": 0.2, "silhouette": 0.1},
        **{"clusters/accuracy": 0.6, "clusters/nmi": 0.3, "clusters/ari": 0.2},
    },
    "lowshot": {f"linear/{k}": v for k, v in {"k20": 0.3, "k5": 0.25, "1%": 0.2, "10%": 0.4, "1%/std": 0.01}.items()},
}


def svg(spec: Spec) -> str:
    """The chart as Vega-Lite draws it; a specification that it warns of is an error."""
    return vl_convert.vegalite_to_svg({**spec, "width": 600}, show_warnings=True)


def data(spec: Spec, *fields: str) -> list[tuple]:
    return [tuple(one.get(field) for field in fields) for one in spec["data"]["values"]]


def measured(one: EncoderRow) -> EncoderRow:
    """A row of a single seed that has all measures."""
    found = {name: (replace(one.records["linear"][0], numbers=of, correct=None),) for name, of in NUMBERS.items()}
    stages = {"top1/stage1": 0.5, "top1/stage2": 0.25}
    linear = replace(one.records["linear"][0], numbers={**one.records["linear"][0].numbers, **stages})
    return replace(one, encoders=one.encoders[:1], records={"linear": (linear,), **found})


def test_the_ranking_has_every_encoder_with_its_interval(capfd):
    rows = three()
    spec = charts.ranking(rows, "linear", Marks.of(rows))
    for one, (label, value, low, high) in zip(rows, data(spec, "encoder", "value", "low", "high"), strict=True):
        assert label == one.name and (value, low, high) == pytest.approx([100 * n for n in one.headline("linear")])
    text = svg(spec)
    assert all(one.name in text for one in rows) and text.count("95 % interval: ") == 2 * len(rows)
    assert "WARN" not in "".join(capfd.readouterr())


def test_every_measure_is_drawn_that_was_taken(capfd):
    """None of what is not there: invariance and neighbors, the layers, and few labels from the fewest on."""
    one = three()[2]
    full = measured(one)
    marks = Marks.of([full])
    found = {
        "invariance": [("crop", 0.25), ("rotation", 0.5)],
        "equivariance": [("crop", 0.6), ("rotation", 0.75)],
        "parameters": [("hue", -0.1)],
        "semantic_similarity": [("purity@1", 0.5), ("purity@20", 0.4)],
        "clusters": [("accuracy", 0.6), ("NMI", 0.3), ("ARI", 0.2)],
    }
    for name, expected in found.items():
        spec = getattr(representation, name)([full], marks)
        assert data(spec, "kind", "value") == expected and all(kind in svg(spec) for kind, _ in expected)
    few = charts.lowshot([full], marks)
    assert few["layer"][0]["encoding"]["x"]["sort"] == ["1%", "10%", "k5", "k20"]
    assert sorted(data(few, "x", "value", "low")) == [
        *(("1%", 20.0, 19.0), ("10%", 40.0, 40.0), ("k20", 30.0, 30.0), ("k5", 25.0, 25.0)),
    ]
    layers = charts.stages([full], "linear", marks)
    assert data(layers, "x", "value") == [(1, 50.0), (2, 25.0)]
    assert data(charts.stages([full], "invariance", marks), "x", "value") == [(1, 0.1), (2, 0.5)], "no accuracy"
    assert "k20" in svg(few) and "stage of the encoder" in svg(layers)
    moves = representation.movement([full], marks)
    assert data(moves, "x", "value") == [(0.5, 0.75)] and "relative distance that a turn moves" in svg(moves)
    missing = [charts.lowshot, representation.movement, *(getattr(representation, name) for name in found)]
    assert all(draw([one], marks) is None for draw in missing)
    assert "WARN" not in "".join(capfd.readouterr())


def test_a_chart_has_no_layer_without_data():
    """Of which Vega warns in the reader's console: no baseline, and no interval for a single seed's other measures."""
    one = measured(three()[2])
    shown = charts.ranking([one], "invariance", Marks.of([one]))
    assert [layer["mark"]["type"] for layer in shown["layer"]] == ["point", "text"] and "rotnet" in svg(shown)
    assert [layer["mark"]["type"] for layer in charts.cost([one], "invariance", Marks.of([one]))["layer"]] == ["point"]
    full = charts.ranking(three(), "linear", Marks.of(three()))
    assert [layer["mark"]["type"] for layer in full["layer"]] == ["rule", "rule", "point", "text"]


def test_training_against_transfer():
    rows = three()[1:]
    marks = Marks.of(rows)
    spec = charts.cost(rows, "linear", marks)
    assert data(spec, "encoder", "x") == [("jigsaw", 10.0), ("rotnet", 10.0), ("context", 5.0)]
    assert "seconds of training" in svg(spec) and charts.pretext(rows, "linear", marks) is None
    runs = tuple(replace(one, pretext={"accuracy": 0.1 * i}) for i, one in enumerate(rows[0].trainings))
    spec = charts.pretext([replace(rows[0], trainings=runs)], "linear", marks)
    top1 = [100 * record.numbers["top1"] for record in rows[0].records["linear"]]
    assert data(spec, "x", "value") == [*zip((0.0, 10.0, 20.0), top1)] and "correlation r = " in svg(spec)


def test_a_long_training_curve_is_thinned_and_gaps_are_left_out():
    rows = three()[1:2]
    curve = [{"images": 8 * i, "loss": float("nan") if i == 1 else 1 / (i + 1)} for i in range(1000)]
    spec = charts.training([(Marks.of(rows)[rows[0]], curve)], "loss")
    points = data(spec, "x", "value")
    assert len(points) == charts.MOST_POINTS and points[0] == (0, 1.0) and points[-1] == (7992, 0.001)
    assert "images seen" in svg(spec)


def test_gains_over_datasets():
    rows = three()[1:3]
    marks = Marks.of(rows)
    ranks = tuple(Summary(mean, mean - 0.5, mean + 0.5) for mean in (1.25, 1.75))
    gains = tuple(Summary(mean, mean - 0.01, mean + 0.01) for mean in (0.05, 0.02))
    summary = OverDatasets("linear", ("a", "b"), ("jigsaw", "rotnet"), ranks, gains, ())
    spec = charts.gains_over_datasets(summary, [marks[one] for one in rows])
    assert data(spec, "encoder", "value")[:2] == [("jigsaw", pytest.approx(5)), ("rotnet", pytest.approx(2))]
    assert "mean rank: 1.25 (0.75 to 1.75)" in svg(spec)


def test_an_encoder_has_one_color_and_a_name_of_its_own():
    """Also encoders whose names are alike where they are cut; baselines are gray, and the reference is green."""
    one, right = three()[2], np.arange(N)[None] < 200
    names = [f"{'a' * 30}{i}{'b' * 30}" for i in range(3)]
    rows = [*(replace(one, name=name) for name in names), row("random-init", right), row("supervised", right)]
    other = replace(one, name="random-init", encoders=(replace(rows[3].one, encoder="nin"),))
    found = Marks.of([*rows, other])
    assert len({mark.label for mark in found.by_key.values()}) == 6 and found[other].label == "random-init (nin)"
    assert found[rows[4]].color == "#54a24b" and found[rows[3]].color != found[other].color
    assert [found[each] for each in reversed(rows)] == [
        Marks.of([*reversed(rows), other])[each] for each in reversed(rows)
    ]


def test_four_floors_look_different(capfd):
    right = np.arange(N)[None] < 100
    floors = [row("raw-pixels", right, encoder="raw-pixels"), row("random-init", right)]
    floors += [row("random-init", right), row("kmeans", right, encoder="kmeans-400")]
    floors[2] = replace(floors[2], name="random-init-per-image")
    found = Marks.of(floors)
    assert {one.kind for one in floors} == {"floor"}
    assert len({(found[one].color, found[one].shape) for one in floors}) == 4
    assert "WARN" not in svg(charts.ranking(floors, "linear", found)) + "".join(capfd.readouterr())


def test_many_names_have_room():
    rows = [replace(row("rotnet", np.arange(N)[None] < i), name=f"rotnet (lr {i})") for i in range(60)]
    text = svg(charts.cost(rows, "linear", Marks.of(rows)))
    assert all(text.count(f">rotnet (lr {i})<") == 1 for i in range(60))


@pytest.mark.parametrize("value", [0.0, -3.0, 1e30])
def test_any_value_can_be_drawn(value, capfd):
    """Of an accuracy, of a protocol where lower is better, and of any other measure, for one seed and more."""
    right = np.full((2, 3), value > 0)
    rows = [row("random-init", right[:1]), row("rotnet", right[:1], right[:1]), row("pirl", right, right)]
    for protocol, name in (("invariance", "rotation"), ("collapse", "rankme")):
        made = [records(one.correct("linear"), protocol, **{name: value}) for one in rows]
        rows = [
            replace(one, records={**one.records, protocol: tuple(replace(each, correct=None) for each in of)})
            for one, of in zip(rows, made)
        ]
    for protocol in ("linear", "invariance", "collapse"):
        for draw in (charts.ranking, charts.cost):
            spec = draw(rows, protocol, Marks.of(rows))
            assert "rotnet" in svg(spec) and {round(one[0], 2) for one in data(spec, "value") if one[0] is not None}
    assert "WARN" not in "".join(capfd.readouterr())
