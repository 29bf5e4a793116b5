"""Files of plug-ins on a real cluster: they are sent, to a job's own process and to its workers."""

import json
from pathlib import Path

import pytest
from support.head import Head
from support.plugin_package import TASK, plugged_in

from jobs.submission.command import prepare_command

pytestmark = pytest.mark.ray

SHORT = "--size 32 --steps 3 --batch 8 --encoder convnet-plain --wandb off --decode-threads 1 --workers 1"


@pytest.fixture
def folder(tmp_path, shapes) -> Path:
    """Holds mirror.py, which notes in imported.txt where each process has it from."""
    note = f"with open({str(tmp_path / 'imported.txt')!r}, 'a') as file:\n    file.write(__file__ + '\\n')\n"
    (tmp_path / "mirror.py").write_text(TASK + note)
    (tmp_path / "data").symlink_to(shapes)
    return tmp_path


def places(folder: Path) -> set[Path]:
    return {Path(line) for line in (folder / "imported.txt").read_text().splitlines()}


def test_submitted_with_its_file(cluster: Head, folder):
    submit = ("submit", "--address", cluster.address)
    pretrain = ("pretrain", "mirror", "--plugin", "mirror.py", "--data", "data", *SHORT.split())
    shown = cluster.run(*submit, "--dry-run", *pretrain, cwd=folder)
    assert f"\nand {folder}/mirror.py\n" in shown and "TILESPIN_PLUGINS=plugins/mirror.py" in shown
    assert "--plugin" not in shown.partition("command: ")[2]
    assert "trained   mirror-" in cluster.run(*submit, *pretrain, cwd=folder)
    here = folder / "mirror.py"
    assert here in places(folder), "this process read it, to check the options"
    sent = places(folder) - {here}
    assert sent and all(path.match("working_dir_files/*/plugins/mirror.py") for path in sent)
    assert not list(cluster.folder.rglob("working_dir_files/*/data")), "what lies beside it stayed behind"


def test_a_cluster_that_is_joined_is_sent_the_file(cluster: Head, folder):
    address = (cluster.folder / "r/ray_current_cluster").read_text()
    words = f"pretrain mirror --plugin mirror.py --data data {SHORT} --address {address}"
    cluster.run(*words.split(), cwd=folder)
    here, sent = folder / "mirror.py", places(folder) - {folder / "mirror.py"}
    assert here in places(folder) and sent
    assert all(path.match("working_dir_files/*/plugins/mirror.py") for path in sent)


def test_the_option_does_not_travel(folder, monkeypatch):
    monkeypatch.chdir(folder)
    words = "pretrain mirror --data /d --storage /r --plugin=mirror.py --workers 1"
    with plugged_in(folder):
        command = prepare_command(words.split(), here=False)
        assert command.options == {"task": "mirror", "data": "/d", "storage": "/r", "workers": "1"}
        (folder / "run.json").write_text(json.dumps({"task": "mirror", "data": "/d", "plugin": ["mirror.py"]}))
        command = prepare_command(["pretrain", "--config", "run.json", "--storage", "/r"], here=False)
        assert command.options == {"task": "mirror", "data": "/d", "storage": "/r", "workers": "1"}
