"""Tracking may fail; the work goes on."""

import pytest

import jobs.segments as segments
from jobs.tracking import Tracker, resolve


@pytest.fixture
def broken(monkeypatch):
    """A W&B client whose service cannot be reached."""
    import wandb

    def init(**_):
        raise wandb.errors.CommError("no service")

    monkeypatch.setattr(wandb, "init", init)


def test_failure_warns_once_and_is_then_silent(broken, tmp_path, capsys):
    tracker = Tracker("online", tmp_path, id="x", study="s", job_type="pretrain", name="x", config={})
    tracker.log({"loss": 1.0}, 1)
    tracker.picture("samples", tmp_path / "none.png", 2)
    tracker.finish()
    said = capsys.readouterr().err
    assert said.count("warning") == 1 and "the job goes on" in said and "no service" in said


def test_failure_in_mid_run_warns_once(tmp_path, capsys):
    """A picture that is not there: the run ends for W&B, and what follows is silent."""
    tracker = Tracker("offline", tmp_path, id="x", study="s", job_type="pretrain", name="x", config={})
    run = tracker.run
    tracker.picture("samples", tmp_path / "none.png", 2)
    tracker.log({"loss": 1.0}, 1)
    tracker.finish()
    run.finish()
    assert capsys.readouterr().err.count("warning") == 1


@pytest.mark.parametrize(("said", "mode"), [("offline", "offline"), ("online", "online"), ("disabled", "off")])
def test_wandb_mode_is_respected(monkeypatch, said, mode):
    monkeypatch.setenv("WANDB_MODE", said)
    assert resolve("auto") == mode
    assert resolve("offline") == "offline", "an option given is stronger"


def test_not_logged_in_is_offline(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("auto") == "offline"


def test_segments_are_read_up_to_the_first_torn_record(tmp_path):
    """A segment of the real client, of three blocks, cut at any byte: what is whole of it is read, and read on."""
    tracker = Tracker("offline", tmp_path, id="x", study="s", job_type="pretrain", name="x", config={}, step="step")
    for step in range(1, 31):
        tracker.log({"step": step, "text": "x" * 2500}, step)
    tracker.finish()
    (file,) = tmp_path.glob("wandb/offline-run-*/run-x.wandb")
    data = file.read_bytes()
    ends = [end for _, end in segments.records(data)]
    assert ends[-1] == len(data) > 2 * segments.BLOCK and segments.last_step(tmp_path, "x") == 30
    for size in [*range(0, 300), *(end + shift for end in ends for shift in (-1, 0, 1, 7, 8))]:
        whole = segments.whole(data[:size])
        assert len(whole) == max((end for end in ends if end <= size), default=0)
        assert whole == data[: len(whole)]
    damaged = bytearray(data)
    damaged[ends[9] + 20] ^= 1
    assert len(segments.whole(bytes(damaged))) == ends[9], "what lies behind damage is not trusted"


def test_sync_command_mends_segments(tmp_path):
    """A run killed before its first record leaves a header only, others a torn end: the client would stop there."""
    tracker = Tracker("offline", tmp_path, id="x", study="s", job_type="pretrain", name="x", config={}, step="step")
    tracker.log({"step": 7}, 7)
    tracker.finish()
    (good,) = tmp_path.glob("wandb/offline-run-*/run-x.wandb")
    data = good.read_bytes()
    for name, content in (("1-a", data[: segments.HEADER]), ("2-b", b""), ("3-c", data[:-5])):
        folder = tmp_path / "wandb" / f"offline-run-{name}"
        folder.mkdir()
        (folder / "run-a.wandb").write_bytes(content)
    assert segments.sync_command(tmp_path) == f"wandb sync {tmp_path}/wandb/offline-run-*"
    assert {p.name for p in tmp_path.glob("wandb/offline-run-*")} == {"offline-run-3-c", good.parent.name}
    mended = (tmp_path / "wandb/offline-run-3-c/run-a.wandb").read_bytes()
    assert mended == segments.whole(data[:-5]) and 0 < len(mended) < len(data) - 5
    assert good.read_bytes() == data
    assert segments.sync_command(tmp_path / "nothing") is None


def test_late_writes_of_a_dying_client_go_nowhere(tmp_path):
    """A run that is continued freezes what was there: who still writes to it changes nothing that was counted."""
    folder = tmp_path / "wandb" / "offline-run-1-x"
    folder.mkdir(parents=True)
    tracker = Tracker("offline", tmp_path, id="y", study="s", job_type="pretrain", name="y", config={}, step="step")
    tracker.log({"step": 3}, 3)
    tracker.finish()
    (good,) = tmp_path.glob("wandb/offline-run-*/run-y.wandb")
    data = good.read_bytes()
    file = folder / "run-x.wandb"
    file.write_bytes(data[:-5])
    with open(file, "ab") as late:
        tracker = Tracker("offline", tmp_path, id="x", study="s", job_type="pretrain", name="x", config={}, step="step")
        late.write(data[-5:])
    assert tracker.held == 3
    tracker.finish()
    assert file.read_bytes() == segments.whole(data[:-5])
