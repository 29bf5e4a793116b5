"""What checkpoints promise when a disk, a crash or a stranger has been at them."""

import contextlib
import hashlib
import io
import pickle
from pathlib import Path

import pytest
import torch

from ssl_core.checkpoint import Keep, newest, save
from ssl_core.files import write_bytes, write_json


def state(step: int) -> dict:
    return {"step": step, "model": {"weight": torch.full((50,), float(step))}, "optimizer": {"lr": 0.1, "state": {}}}


def test_gives_back_what_was_saved(tmp_path):
    save(tmp_path, state(7))
    found, damaged = newest(tmp_path)
    assert found["step"] == 7 and found["optimizer"] == {"lr": 0.1, "state": {}}
    assert torch.equal(found["model"]["weight"], torch.full((50,), 7.0))
    assert damaged == []


def test_finds_nothing_where_nothing_is(tmp_path):
    assert newest(tmp_path) == (None, [])
    assert newest(tmp_path / "absent") == (None, [])


def test_keeps_only_the_newest(tmp_path):
    for step in (1, 2, 10, 100):
        save(tmp_path, state(step))
    left = sorted(path.name for path in tmp_path.iterdir())
    assert Keep().last == 2
    assert left == [f"step-{step:09d}.{kind}" for step in (10, 100) for kind in ("json", "pt")]
    assert newest(tmp_path)[0]["step"] == 100


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def without_manifest_content(path: Path) -> None:
    path.with_suffix(".json").write_text('{"sha256": "')


@pytest.mark.parametrize("harm", [torn, flipped, Path.unlink, without_manifest_content])
def test_a_damaged_newest_is_passed_over_and_named(tmp_path, harm):
    save(tmp_path, state(1))
    path = save(tmp_path, state(2))
    harm(path)
    found, damaged = newest(tmp_path)
    assert found["step"] == 1
    assert damaged == [path]


def test_all_damaged_is_nothing(tmp_path):
    paths = [save(tmp_path, state(step)) for step in (1, 2)]
    for path in paths:
        flipped(path)
    assert newest(tmp_path) == (None, paths[::-1])


def test_without_its_manifest_it_is_not_there(tmp_path):
    save(tmp_path, state(1))
    save(tmp_path, state(2)).with_suffix(".json").unlink()
    found, damaged = newest(tmp_path)
    assert found["step"] == 1 and damaged == []


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_loading_runs_no_code(tmp_path):
    marker = tmp_path / "executed"
    buffer = io.BytesIO()
    torch.save({"step": 1, "model": Malicious(marker)}, buffer)
    write_bytes(tmp_path / "step-000000001.pt", buffer.getvalue())
    write_json(tmp_path / "step-000000001.json", {"sha256": hashlib.sha256(buffer.getvalue()).hexdigest(), "step": 1})
    with contextlib.suppress(pickle.UnpicklingError):
        assert newest(tmp_path)[0] is None
    assert not marker.exists()
    torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert marker.exists(), "the file was harmless, so this test would prove nothing"
