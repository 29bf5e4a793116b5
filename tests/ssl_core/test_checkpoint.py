"""What checkpoints promise when a disk, a crash or a stranger has been at them."""

import contextlib
import errno
import hashlib
import io
import pickle
import secrets
from pathlib import Path

import pytest
import torch

import ssl_core.storage.checkpoint as checkpoint
from ssl_core.storage.checkpoint import Keep, Snapshot, discard_damaged, load_newest, save
from ssl_core.storage.files import open_path, write_bytes, write_json


def state(step: int) -> dict:
    return {"step": step, "model": {"weight": torch.full((50,), float(step))}, "optimizer": {"lr": 0.1, "state": {}}}


def test_gives_back_what_was_saved(tmp_path):
    save(tmp_path, state(7))
    found, damaged = load_newest(tmp_path)
    assert found["step"] == 7 and found["optimizer"] == {"lr": 0.1, "state": {}}
    assert torch.equal(found["model"]["weight"], torch.full((50,), 7.0))
    assert damaged == []


def test_finds_nothing_where_nothing_is(tmp_path):
    assert load_newest(tmp_path) == (None, [])
    assert load_newest(tmp_path / "absent") == (None, [])


def test_keeps_only_the_newest(tmp_path):
    for step in (1, 2, 10, 100):
        save(tmp_path, state(step))
    left = sorted(path.name for path in tmp_path.iterdir())
    assert Keep().last == 2
    assert left == [f"step-{step:09d}.{kind}" for step in (10, 100) for kind in ("json", "pt")]
    assert load_newest(tmp_path)[0]["step"] == 100


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
    found, damaged = load_newest(tmp_path)
    assert found["step"] == 1
    assert damaged == [path]


def test_all_damaged_is_nothing(tmp_path):
    paths = [save(tmp_path, state(step)) for step in (1, 2)]
    for path in paths:
        flipped(path)
    assert load_newest(tmp_path) == (None, paths[::-1])


def test_without_its_manifest_it_is_not_there(tmp_path):
    save(tmp_path, state(1))
    save(tmp_path, state(2)).with_suffix(".json").unlink()
    found, damaged = load_newest(tmp_path)
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
        assert load_newest(tmp_path)[0] is None
    assert not marker.exists()
    torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert marker.exists(), "the file was harmless, so this test would prove nothing"


def steps(folder) -> list[int]:
    return sorted(int(path.stem.removeprefix("step-")) for path in folder.glob("step-*.json"))


def test_keeps_the_newest_and_those_of_round_steps(tmp_path):
    for step in range(10, 110, 10):
        save(tmp_path, state(step), Keep(last=3, every=40))
    assert steps(tmp_path) == [40, 80, 90, 100]
    assert {path.stem for path in tmp_path.glob("step-*.pt")} == {path.stem for path in tmp_path.glob("step-*.json")}


def test_those_that_were_passed_over_can_be_discarded(tmp_path):
    """Or a damaged checkpoint would count as one of the newest, and push out a good one."""
    save(tmp_path, state(50))
    flipped(save(tmp_path, state(100)))
    found, damaged = load_newest(tmp_path)
    assert found["step"] == 50
    discard_damaged(damaged)
    save(tmp_path, state(60))
    assert steps(tmp_path) == [50, 60] and len(list(tmp_path.iterdir())) == 4


def test_good_ones_of_later_steps_stay(tmp_path):
    """Whoever wrote them: the same recipe leads to the same weights."""
    for step in (100, 200, 50):
        save(tmp_path, state(step))
    assert steps(tmp_path) == [50, 100, 200]
    assert load_newest(tmp_path)[0]["step"] == 200


def test_an_older_one_can_be_asked_for(tmp_path):
    """Workers agree on the newest that all of them can read."""
    for step in (1, 2):
        save(tmp_path, state(step))
    assert load_newest(tmp_path, at_most=1)[0]["step"] == 1


def test_a_snapshot_is_not_changed_by_later_steps(tmp_path):
    weight = torch.ones(3)
    taken = Snapshot({"step": 1, "model": {"weight": weight, "all": [weight, (weight, 2)]}})
    weight.add_(1)
    taken.save(tmp_path, Keep())
    found = load_newest(tmp_path)[0]["model"]
    assert found["all"][1][1] == 2
    for kept in (found["weight"], found["all"][0], found["all"][1][0]):
        assert torch.equal(kept, torch.ones(3))


def test_a_disk_that_answers_nothing_is_no_damage(tmp_path, monkeypatch):
    """Starting anew from the beginning because a file server is away for a moment would cost everything."""
    save(tmp_path, state(1))

    def stale(path):
        raise OSError(errno.ESTALE, "stale file handle")

    monkeypatch.setattr(checkpoint, "read_bytes", stale)
    with pytest.raises(OSError, match="stale"):
        load_newest(tmp_path)


@pytest.fixture
def store():
    """A folder in fsspec's object store in memory, and the order in which objects were put there."""
    folder = open_path(f"memory://checkpoints-{secrets.token_hex(4)}/run")
    put, filesystem = [], type(folder.fs)
    real = filesystem.pipe_file
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            filesystem, "pipe_file", lambda self, path, *a, **k: (real(self, path, *a, **k), put.append(path))
        )
        yield folder, put


def test_in_an_object_store_the_manifest_comes_last(store):
    folder, put = store
    for step in (1, 2, 3):
        save(folder, state(step))
    assert [Path(path).suffix for path in put] == [".pt", ".json"] * 3
    assert steps(folder) == [2, 3] and len(list(folder.glob("*"))) == 4
    path = folder / "step-000000003.pt"
    path.write_bytes(path.read_bytes()[:-1])
    found, damaged = load_newest(folder)
    assert found["step"] == 2 and [str(p) for p in damaged] == [str(path)]
