"""Rows of several seeds: their means, intervals, pairs, and what is said of them."""

import csv
import io
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
from support.comparison import N, records, row, three, training

from jobs.config.evaluation import Evaluation
from jobs.evaluation.encoders import EvaluatedEncoder
from jobs.report.collect import _distinguishing_names, _read_configs, _unique_labels, collect
from jobs.report.comparison import EncoderRow, by_dataset, pairs, protocols_of
from jobs.report.conclusions import conclusions, format_number
from jobs.report.results_csv import as_csv
from jobs.study.folder import Study
from ssl_core.evaluation.statistics import two_way_bootstrap, wilson_interval
from ssl_core.storage.files import write_json
from ssl_core.storage.records import EncoderRecord


@pytest.fixture(scope="module")
def rows() -> list[EncoderRow]:
    return three()


def test_a_row_is_the_mean_of_its_seeds(rows):
    rotnet = rows[2]
    correct = rotnet.correct("linear")
    assert correct.shape == (3, N)
    value, low, high = rotnet.headline("linear")
    assert (
        value == pytest.approx(correct.mean()) and (low, high) == two_way_bootstrap(correct).ends and low < value < high
    )
    assert rotnet.headline("knn") is None and format_number(rotnet, "knn") == "-"
    assert format_number(rotnet, "linear").startswith(f"{100 * value:.1f} ±")


def test_recipes_of_one_task_are_told_apart_by_what_they_do_not_share(tmp_path):
    study = Study(tmp_path)

    def run(name: str, seed: int = 0, encoder: str = "convnet", **task) -> EvaluatedEncoder:
        config = {"task": {"name": name.partition("-")[0], "batch": 64, **task}, "encoder": encoder, "seed": seed}
        write_json(study.run(name) / "config.json", config)
        return EvaluatedEncoder(name.partition("-")[0], encoder, name, "shapes", 32, seed, "dataset")

    two = [run("pirl-1", transform="rotation"), run("pirl-2", seed=1, transform="jigsaw", grid=2)]
    alone = [run("rotnet-1", optim={"lr": 0.1})]
    assert _distinguishing_names(_read_configs(study, two + alone), two + alone) == {
        "pirl-1": "pirl (transform rotation, grid as usual)",
        "pirl-2": "pirl (transform jigsaw, grid 2)",
    }
    inside = [run(f"rotnet-{lr}", optim={"lr": lr, "warmup": 0.2}) for lr in (0.1, 0.2)]
    assert list(_distinguishing_names(_read_configs(study, inside), inside).values()) == [
        "rotnet (lr 0.1)",
        "rotnet (lr 0.2)",
    ]
    long = [
        run("rotnet-3", encoder="an encoder with a name that is so long that nobody reads it"),
        run("rotnet-4", encoder="another such encoder"),
    ]
    assert _distinguishing_names(_read_configs(study, long), long) == {}


def test_recipes_keep_their_names_with_several_seeds(tmp_path, shapes):
    """Runs come in the order of their hashes, seeds do not."""
    study = Study.open(str(tmp_path), "it")
    study.describe(evaluation=asdict(Evaluation(protocols=("linear",))))
    for run, lr, seed in (("rotnet-a", 0.1, 1), ("rotnet-b", 0.1, 0), ("rotnet-c", 0.2, 1), ("rotnet-d", 0.2, 0)):
        write_json(study.run(run) / "config.json", {"task": {"optim": {"lr": lr}}, "seed": seed})
        EncoderRecord(
            encoder="convnet",
            size=32,
            seed=seed,
            mean=(0.0,) * 3,
            std=(1.0,) * 3,
            normalization="dataset",
            digest=run,
            training=training("rotnet", run, data=str(shapes)),
        ).write(study.run(run) / "encoder.json")
    rows = [one for one in collect(study) if one.kind == "task"]
    assert {one.name: [each.seed for each in one.encoders] for one in rows} == {
        "rotnet (lr 0.1)": [0, 1],
        "rotnet (lr 0.2)": [0, 1],
    }


def test_one_seed_has_wilsons_interval():
    right = np.arange(N)[None] < 300
    assert row("rotnet", right).headline("linear")[1:] == wilson_interval(right[0])


def test_gains_are_over_the_floor_of_the_same_seed(rows):
    by = {one.name: one for one in rows}
    gain = by["rotnet"].gains["linear"]
    difference = by["rotnet"].correct("linear").mean() - by["random-init"].correct("linear").mean()
    assert gain.mean == pytest.approx(difference) and by["rotnet"].verdict("linear") == "better than random"
    assert by["jigsaw"].verdict("linear") == "within noise of random" and by["random-init"].verdict("linear") == ""


def test_pairs_say_what_is_within_noise(rows):
    found = {(pair.better.name, pair.worse.name): pair for pair in pairs(rows, "linear")}
    assert len(found) == 3 and all(pair.difference.mean >= 0 for pair in found.values())
    clear = found["rotnet", "jigsaw"]
    assert clear.verdict == "better" and clear.difference.p <= clear.adjusted < 0.05
    assert next(pair for both, pair in found.items() if "jigsaw" not in both).verdict == "within noise"


def test_it_is_said(rows):
    (part,) = by_dataset(rows)
    assert [one.kind for one in part.rows] == ["floor", "task", "task", "task"] and part.rows[1].name == "jigsaw"
    assert part.protocols == protocols_of(part.rows) == ("linear",)
    assert part.pairs == {"linear": pairs(part.rows, "linear")}
    said = "\n".join(conclusions(part))
    best, second = part.rows[3].name, part.rows[2].name
    assert f"Best task by linear: {best}" in said and f"Within noise of it: {second}." in said
    assert ("The cheapest of these is context, 5 s against 10 s." in said) == (best == "rotnet")
    assert said.startswith("Pretraining helps on these images: by linear, over the same encoder at random ")
    assert "jigsaw is within noise of random" in said
    assert re.search(rf"about \d+ seeds would tell {best} from {second}, by \d\.\d points\.", said)
    assert not re.search(r"nan|inf", said)


def test_the_table_has_a_row_for_each_number(rows):
    found = list(csv.DictReader(io.StringIO(as_csv(by_dataset(rows)))))
    by = {(line["task"], line["metric"]): line for line in found}
    assert all(line["seeds"] == "3" and line["dataset"] == "shapes" for line in found)
    assert not any(metric == "top1/over-knn" for _, metric in by), "there is no kNN"
    gain = rows[2].gains["linear"]
    assert float(by["rotnet", "top1/gain-over-random-init"]["low"]) == gain.low
    assert float(by["rotnet", "top1/over/jigsaw/p"]["value"]) < 0.05
    assert by["rotnet", "top1"]["pretrain_run"] == "rotnet-0 rotnet-1 rotnet-2"
    assert ("jigsaw", "top1/over/rotnet") not in by


def test_other_test_images_are_not_compared(rows):
    """Of another dataset, or another number of them."""
    shorter = row("other", rows[1].correct("linear")[:, :100])
    elsewhere = replace(rows[1], records={"linear": records(rows[1].correct("linear"), dataset="else")})
    found = pairs([rows[2], shorter, elsewhere], "linear")
    assert found == [] and len(by_dataset([rows[2], elsewhere])) == 2


def test_linear_over_knn_is_paired():
    """A third of the images that a linear probe gets right, its neighbors get wrong."""
    right = np.arange(N)[None] < 300
    one = row("rotnet", right)
    both = replace(one, records={**one.records, "knn": records(np.arange(N)[None] < 200, "knn")})
    assert one.gap is None and both.gap.mean == pytest.approx(0.25) and both.gap.low > 0.2
    assert ",linear,top1/over-knn,0.25," in as_csv(by_dataset([both]))


def test_a_plug_in_called_kmeans_is_a_task():
    """A dictionary of patches is known by its encoder; no plug-in can be called raw-pixels or random-init."""
    correct = np.arange(N)[None] < 300
    dictionary = row("kmeans", correct)
    dictionary = replace(dictionary, encoders=(replace(dictionary.one, encoder="kmeans-16"),))
    assert (row("kmeans", correct).kind, dictionary.kind) == ("task", "floor")
    said = [
        "\n".join(conclusions(by_dataset([row("rotnet", correct), other])[0]))
        for other in (row("kmeans", correct), dictionary)
    ]
    assert ["patches that k-means learned" in one for one in said] == [False, True]


def test_baselines_of_several_seeds_have_names_of_their_own():
    """The same architecture with two stems, and another one; each of two seeds, in one table."""
    kinds = [("resnet18", None), ("resnet18", 64), ("convnet", None)]
    groups = [
        [EvaluatedEncoder("random-init", name, None, "shapes", 32, seed, "dataset", stem=stem) for seed in (0, 1)]
        for name, stem in kinds
    ]
    names = [f"random-init ({name}, built for {stem or 32} px)" for name, stem in kinds]
    assert [*_unique_labels(groups).values()] == names
    assert [*_unique_labels(groups[:1]).values()] == ["random-init"]
    alone = [group[:1] for group in groups[:1]] + [groups[0][1:]]
    assert [*_unique_labels(alone).values()] == ["random-init (seed 0)", "random-init (seed 1)"]
