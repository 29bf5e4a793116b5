"""Cells and floors: what is judged with what, under which name."""

from dataclasses import replace

import numpy as np
import pytest
from support.comparison import records

from cluster.job import Job, Outcome, check_jobs
from jobs.config.evaluation import Evaluation
from jobs.evaluation.encoders import EvaluatedEncoder, unique_labels, with_baselines
from jobs.evaluation.jobs import check_evaluation, evaluation_jobs
from jobs.evaluation.records import protocol_identity
from jobs.execution.run import _outcome_line
from jobs.study.folder import Study
from ssl_core.errors import UserError
from ssl_core.evaluation.protocol import protocols
from ssl_core.storage.records import EvaluationRecord


def run(task: str, seed: int, data: str, normalization: str = "dataset") -> EvaluatedEncoder:
    return EvaluatedEncoder(task, "convnet", f"{task}-{seed}", data, 32, seed, normalization)


def test_each_normalization_has_its_floor(shapes):
    """Raw pixels and a random encoder always; one more where a run standardizes each image."""
    plain = with_baselines([run("rotnet", 0, str(shapes))])
    assert [one.short_label for one in plain] == ["raw-pixels", "random-init", "rotnet-0"]
    both = with_baselines([run("rotnet", 0, str(shapes)), run("jigsaw", 0, str(shapes), "image")])
    assert "random-init-per-image" in [one.short_label for one in both]


def test_floors_of_two_seeds_do_not_share_a_job(shapes, tmp_path):
    """Jobs hand results on by name: two floors of one name would be judged by each other's features."""
    judged = with_baselines([run("rotnet", 0, str(shapes)), run("rotnet", 1, str(shapes))])
    assert len(set(unique_labels(judged).values())) == len(judged)
    found = evaluation_jobs(Study(tmp_path), judged, Evaluation(), "off", "cpu", {"rotnet-0", "rotnet-1"}, 0)
    assert len({job.name for job in found}) == len(found) == (1 + len(Evaluation().protocols)) * len(judged)
    check_jobs([Job("rotnet-0", print), Job("rotnet-1", print), *found])


def test_what_looks_at_the_encoder_waits_for_no_features(shapes, tmp_path):
    """It loads the encoder itself, where there is a GPU on one; features are extracted only for those that use them."""
    judged = [run("rotnet", 0, str(shapes))]
    told = "off", "cuda", {"rotnet-0"}, 0
    found = evaluation_jobs(Study(tmp_path), judged, Evaluation(protocols=("knn", "collapse")), *told)
    needs = {job.name: (job.needs, job.gpus) for job in found}
    assert needs == {
        "features/rotnet-0": (("rotnet-0",), 1),
        "knn/rotnet-0": (("features/rotnet-0",), 0),
        "collapse/rotnet-0": (("rotnet-0",), 1),
    }
    alone = evaluation_jobs(Study(tmp_path), judged, Evaluation(protocols=("collapse",)), *told)
    assert [job.name for job in alone] == ["collapse/rotnet-0"]


def test_without_labels_one_line_says_what_can_be_measured(photos):
    judged = with_baselines([run("rotnet", 0, str(photos))])
    with pytest.raises(
        UserError, match=r"has no labels: .*, or what does without .*: --protocols collapse equivariance invariance"
    ):
        check_evaluation(judged, Evaluation())
    check_evaluation(judged, Evaluation(protocols=("collapse", "invariance", "retrieval")))


def test_queue_refuses_jobs_of_one_name():
    with pytest.raises(ValueError, match="there twice"):
        check_jobs([Job("a", print), Job("a", print)])
    with pytest.raises(ValueError, match="before one of"):
        check_jobs([Job("b", print, needs=("a",)), Job("a", print)])


@pytest.mark.parametrize(
    "changes",
    [
        {"protocols": ()},
        {"protocols": ("linear", "linear")},
        {"probe_seed": -1},
        {"val_fraction": 1.0},
        {"num_labels": -5},
    ],
)
def test_impossible_settings_are_refused(changes):
    with pytest.raises(UserError):
        Evaluation(**changes).check()


def test_any_error_text_can_be_shown(tmp_path):
    """Brackets in a message are no markup: this one is what a lost gloo peer leaves."""
    from rich.console import Console

    said = "RuntimeError: [/pytorch/third_party/gloo/pair.cc:538] Connection closed"
    outcome = Outcome("linear/x", None, f"Traceback\n{said}", reason=said)
    console = Console(record=True, width=200)
    console.print(_outcome_line(outcome, Study(tmp_path)))
    assert "[/pytorch/third_party/gloo/pair.cc:538] Connection closed" in console.export_text()


def test_options_of_a_protocol_are_the_same_when_they_are_read_back(tmp_path):
    """Options have tuples, JSON has lists only: a comparison finds records by what it wants to be equal."""
    (record,) = records(np.ones((1, 4), bool))
    for name in protocols():
        wanted = protocol_identity(name, Evaluation())
        replace(record, protocol=wanted).write(tmp_path / "it.json")
        assert EvaluationRecord.read(tmp_path / "it.json").protocol == wanted
