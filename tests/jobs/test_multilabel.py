"""Datasets with several labels an image: what can be done with them, and what refuses them in one line."""

import json

import pytest
from support.image_folders import put

from jobs.config.evaluation import Evaluation
from jobs.config.recipe import PretrainConfig
from jobs.evaluation.jobs import check_dataset
from ssl_core.data.dataset import open_source
from ssl_core.errors import UserError
from ssl_core.evaluation.coverage import missing_classes
from ssl_core.tasks.rotnet import RotNet
from ssl_core.tasks.supervised import Supervised


def test_what_needs_one_label_refuses_several(tmp_path):
    names, labels = [f"{i}.png" for i in range(12)], [["cat"], ["cat", "dog"], ["dog"]] * 4
    put(tmp_path / "pets", *names)
    rows = [json.dumps(dict(file_name=name, label=label)) for name, label in zip(names, labels)]
    (tmp_path / "pets" / "metadata.jsonl").write_text("\n".join(rows))
    source = open_source(str(tmp_path / "pets"))
    with pytest.raises(
        UserError,
        match=r"pets has several labels an image, and semantic_similarity need one: .*--protocols .*knn linear",
    ):
        check_dataset(source, Evaluation())
    check_dataset(source, Evaluation(protocols=("collapse", "retrieval")))
    asked = {kind: PretrainConfig(task=kind.Config(), data=str(tmp_path / "pets")) for kind in (Supervised, RotNet)}
    with pytest.raises(UserError, match="supervised needs one label an image, and those of pets have several"):
        asked[Supervised].source()
    assert asked[RotNet].source().digest == source.digest
    assert missing_classes(source.classes, {"test": source.test.labels[:0]})["test"].count == 2
    assert not missing_classes(source.classes, {"train": source.train.labels})
