"""Records on disk: what is written is read back, and what is damaged or of another version is refused in one line."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from support.comparison import records, training

from ssl_core.errors import UserError
from ssl_core.storage import checkpoint
from ssl_core.storage.record import OtherVersion, Record
from ssl_core.storage.records import (
    CheckpointManifest,
    EncoderIdentity,
    EncoderRecord,
    MissingClasses,
)
from ssl_core.storage.study_record import CopiesRecord, StudyRecord

IDENTITY = EncoderIdentity("rotnet", "convnet", "rotnet-1", "/data", 32, 0, "dataset", stem=64)
(EVALUATION,) = records(np.arange(9)[None] < 4)
ONE_OF_EACH = [
    CheckpointManifest(step=3, sha256="0" * 64),
    EncoderRecord(
        encoder="convnet",
        size=32,
        seed=1,
        mean=(1.5, 2.0, 3.0),
        std=(4.0, 5.0, 6.0),
        normalization="image",
        digest="2" * 64,
        training=training("rotnet", "rotnet-1"),
        unused=("fc.weight",),
    ),
    replace(
        EVALUATION,
        dataset=replace(
            EVALUATION.dataset, unread={"test": (1, 9)}, lacking={"val": MissingClasses(count=2, names=("ü", "b"))}
        ),
    ),
    StudyRecord(
        token="abc",
        tilespin="0.1.0",
        commit=None,
        evaluation={"protocols": ["knn"]},
        encoders=(IDENTITY,),
        copies={
            "/data": CopiesRecord(
                digest="1" * 64, test_images=9, compared=8, found=1, relabeled=0, pairs=(("a.png", "b.png"),)
            )
        },
    ),
]
each_record = pytest.mark.parametrize("record", ONE_OF_EACH, ids=lambda record: type(record).__name__)


def change(path: Path, **fields) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@each_record
def test_what_is_written_is_read_back(record: Record, tmp_path):
    record.write(tmp_path / "it.json")
    assert type(record).read(tmp_path / "it.json") == record
    assert json.loads((tmp_path / "it.json").read_text())["version"] == record.VERSION


@each_record
def test_another_version_is_refused_in_one_line(record: Record, tmp_path):
    path = tmp_path / "it.json"
    record.write(path)
    change(path, version=record.VERSION + 1, more="of the future")
    newer = rf"it\.json is of version {record.VERSION + 1}, this Tilespin reads {record.VERSION}: use a newer one"
    with pytest.raises(OtherVersion, match=newer):
        type(record).read(path)
    change(path, version=0)
    with pytest.raises(OtherVersion, match="use an older one"):
        type(record).read(path)


@each_record
def test_damage_is_named(record: Record, tmp_path):
    path = tmp_path / "it.json"
    first = next(iter(asdict(record)))
    for damage, said in (
        ({first: None}, rf"it\.json is damaged: {first}"),
        ({"unknown": 1}, r"it\.json is damaged: unknown"),
        ({"version": None}, "of a Tilespin that wrote no versions"),
    ):
        record.write(path)
        change(path, **damage)
        with pytest.raises(UserError, match=said):
            type(record).read(path)
    path.write_text("[]")
    with pytest.raises(UserError, match="is damaged"):
        type(record).read(path)


def test_a_record_of_a_newer_program_is_not_thrown_away(tmp_path):
    """Damaged checkpoints are passed over and removed; one of a newer program is whole, and somebody else's."""
    for step in (1, 2):
        checkpoint.save(tmp_path, {"step": step}, checkpoint.Keep(last=9))
    change(tmp_path / "step-000000002.json", version=9)
    with pytest.raises(OtherVersion):
        checkpoint.load_newest(tmp_path)
    (tmp_path / "step-000000002.json").write_text("{")
    state, damaged = checkpoint.load_newest(tmp_path)
    assert state == {"step": 1} and damaged == [tmp_path / "step-000000002.pt"]
