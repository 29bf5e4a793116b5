"""Tracking may fail; the work goes on."""

import pytest

from jobs.tracking import Tracker, resolve, sync_command


@pytest.fixture
def broken(monkeypatch):
    """A W&B client whose service cannot be reached."""
    import wandb

    def init(**_):
        raise wandb.errors.CommError("no service")

    monkeypatch.setattr(wandb, "init", init)


def test_failure_warns_once_and_is_then_silent(broken, tmp_path, capsys):
    tracker = Tracker("online", tmp_path, id="x", study="s", job_type="pretrain", name="x", config={})
    tracker.log({"loss": 1.0})
    tracker.picture("samples", tmp_path / "none.png")
    tracker.finish()
    said = capsys.readouterr().err
    assert said.count("warning") == 1 and "the job goes on" in said and "no service" in said


def test_failure_in_mid_run_warns_once(tmp_path, capsys):
    """A picture that is not there: the run ends for W&B, and what follows is silent."""
    tracker = Tracker("offline", tmp_path, id="x", study="s", job_type="pretrain", name="x", config={})
    run = tracker.run
    tracker.picture("samples", tmp_path / "none.png")
    tracker.log({"loss": 1.0})
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


def test_sync_command_leaves_out_empty_segments(tmp_path):
    """A run killed before its first record leaves a header only: the client would stop there."""
    for name, size in (("offline-run-1-a", 7), ("offline-run-2-a", 900)):
        (tmp_path / "wandb" / name).mkdir(parents=True)
        (tmp_path / "wandb" / name / "run-a.wandb").write_bytes(b"x" * size)
    assert sync_command(tmp_path) == f"wandb sync {tmp_path}/wandb/offline-run-*"
    assert [p.name for p in (tmp_path / "wandb").iterdir()] == ["offline-run-2-a"]
    assert sync_command(tmp_path / "nothing") is None
