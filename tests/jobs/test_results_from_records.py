"""Every number of results.csv is computed here once more, from the JSON files of a study's records and nothing else."""

import base64
import csv
import json
from collections import defaultdict
from itertools import combinations

import numpy as np
import pytest

from jobs.commands import study as command
from jobs.commands.study import Options
from jobs.config.parsing import parse
from jobs.study.folder import Study
from ssl_core.evaluation.statistics import holm, paired_difference, t_interval, two_way_bootstrap, wilson_interval

pytestmark = pytest.mark.slow
HEADLINE = {"linear": "top1", "knn": "top1", "semantic_similarity": "purity@20"}
ACCURACIES = ("linear", "knn")


@pytest.fixture(scope="module")
def study(shapes, tmp_path_factory) -> Study:
    asked = dict(data=shapes, size=16, tasks=["rotnet", "jigsaw"], supervised=False, steps=[2], seeds=2, num_labels=60)
    more = dict(protocols=[*HEADLINE], workers="0", wandb="off", decode_threads=1)
    asked |= dict(storage=tmp_path_factory.mktemp("runs"), name="small", **more)
    return command.run(parse(Options, "study", ["--config", json.dumps(asked, default=str)]))


def groups_of(study: Study) -> dict[tuple[str, str], list[dict]]:
    """The records' JSON by task (with the normalization of baselines) and protocol, in the order of their seeds."""
    found = defaultdict(list)
    for path in sorted(study.root.glob("evaluate/*/*.json")):
        record = json.loads(path.read_text())
        one = record["encoder"]
        name = one["task"] if one["run"] or one["normalization"] == "dataset" else f"{one['task']}-per-image"
        found[name, record["protocol"]["name"]].append(record)
    return {key: sorted(of, key=lambda record: record["encoder"]["seed"]) for key, of in found.items()}


def answers(records: list[dict]) -> np.ndarray:
    """[seeds, images] bool: which test images are classified right."""
    bits = [np.unpackbits(np.frombuffer(base64.b64decode(one["correct"]), np.uint8)) for one in records]
    return np.stack([of[: one["dataset"]["images"]["test"]] for of, one in zip(bits, records)]).astype(bool)


def expected(study: Study) -> dict[tuple[str, str, str], tuple]:
    """By row's name, protocol and metric: the value, and the ends of its interval if it has one."""
    groups, found = groups_of(study), {}
    names = dict.fromkeys(name for name, _ in groups)
    trained = [name for name in names if not name.startswith(("raw-pixels", "random-init"))]
    for (name, protocol), records in groups.items():
        metrics = {metric for record in records for metric in record["numbers"]}
        for metric in metrics:
            values = [record["numbers"][metric] for record in records]
            found[name, protocol, metric] = (np.mean(values),)
            if metric == HEADLINE[protocol] and protocol in ACCURACIES:
                right = answers(records)
                found[name, protocol, metric] += (
                    wilson_interval(right[0]) if len(right) == 1 else two_way_bootstrap(right).ends
                )
            elif metric == HEADLINE[protocol] and len(values) > 1:
                found[name, protocol, metric] += t_interval(np.array(values))
    for protocol in ACCURACIES:
        right = {name: answers(groups[name, protocol]) for name in names}
        for name in trained:
            base = right["random-init-per-image" if name == "jigsaw" else "random-init"]
            found[name, protocol, "top1/gain-over-random-init"] = _values(paired_difference(right[name], base))
        pairs = []
        for one, other in combinations(trained, 2):
            better, worse = sorted((one, other), key=lambda name: -right[name].mean())
            pairs.append((better, worse, paired_difference(right[better], right[worse])))
        for (better, worse, difference), p in zip(pairs, holm([one.p for _, _, one in pairs])):
            found[better, protocol, f"top1/over/{worse}"] = _values(difference)
            found[better, protocol, f"top1/over/{worse}/p"] = (p,)
    for name in names:  # raw pixels have one seed
        gap = paired_difference(answers(groups[name, "linear"]), answers(groups[name, "knn"]))
        found[name, "linear", "top1/over-knn"] = _values(gap)
    return found


def _values(one) -> tuple[float, float, float]:
    return one.mean, one.low, one.high


def test_every_number_follows_from_the_records(study):
    """No row is missing, none is there that does not follow, and each is equal to the last digits."""
    wanted = expected(study)
    rows = list(csv.DictReader(study.results.open()))
    found = {}
    for row in rows:
        numbers = tuple(float(row[key]) for key in ("value", "low", "high") if row[key])
        key = (row["task"], row["protocol"], row["metric"])
        assert key not in found
        found[key] = numbers
    # the winner of a pair that is even may be either
    even = [key for key in wanted if key[2].startswith("top1/over/") and wanted[key][0] == 0]
    assert found.keys() - wanted.keys() == set() or even
    assert wanted.keys() - found.keys() == set() or even
    assert len(found) == len(wanted) > 40
    for key in found.keys() & wanted.keys():
        assert found[key] == pytest.approx(wanted[key], rel=1e-12, abs=1e-15), key


def test_seeds_and_runs_are_those_of_the_records(study):
    groups = groups_of(study)
    for row in csv.DictReader(study.results.open()):
        records = groups[row["task"], row["protocol"]]
        assert int(row["seeds"]) == len(records)
        assert row["pretrain_run"] == " ".join(one["encoder"]["run"] for one in records if one["encoder"]["run"])
        assert {row["encoder"]} == {one["encoder"]["encoder"] for one in records}
        assert {row["dataset"]} == {one["dataset"]["name"] for one in records}
