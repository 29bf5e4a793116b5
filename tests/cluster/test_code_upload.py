"""What is shipped to a cluster: the code, whole, and nothing that lies beside or among it."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from support.command import ROOT, environment

import ssl_core.plugin_files as plugin_files
from cluster import code_upload

PLANTED = (
    ".env",
    ".env.local",
    ".netrc",
    "id_rsa",
    "id_ed25519",
    "id_ed25519.pub",
    "server.pem",
    "tls.key",
    "aws_credentials.json",
    ".git-credentials",
    "kubeconfig",
    "store.p12",
)
BESIDE = (
    "runs/demo/results.csv",
    "data/a.png",
    "wandb/x",
    "tests/test_a.py",
    ".git/config",
    ".venv/bin/python",
    "benchmarks/results/a.json",
    "docs/images/a.svg",
    "mine/model.safetensors",
    "a",
    "notes.txt",
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the code with keys, results and other things planted beside it and in every folder of it."""
    place = tmp_path_factory.mktemp("checkout")
    for room in code_upload.PACKAGES:
        shutil.copytree(ROOT / room, place / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", place)
    shutil.copy(ROOT / ".gitignore", place)
    for folder in (place, place / "jobs", place / "ssl_core/data"):
        for name in PLANTED:
            (folder / name).write_text("planted")
    for name in (*BESIDE, "jobs/__pycache__/cli.pyc", "ssl_core/wandb/x", "jobs/.cache/x"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("planted")
    return place


def packed_by_ray(checkout: Path) -> dict[str, bytes]:
    """What Ray itself makes of the checkout's own `package()`."""
    script = (
        "import sys; from cluster import code_upload\n"
        "from ray._private.runtime_env.packaging import create_package, Path\n"
        "package = code_upload.working_dir_options()\n"
        "create_package(package['working_dir'], Path(sys.argv[1]), include_gitignore=True,"
        " excludes=package['excludes'])\n"
        "print(*(path.relative_to(code_upload.ROOT) for path in code_upload.uploaded_files()), sep='\\n')"
    )
    target = checkout.with_suffix(".zip")
    run = dict(cwd=checkout, env=environment(), capture_output=True, text=True, check=True)
    said = subprocess.run([sys.executable, "-c", script, str(target)], **run).stdout.splitlines()
    with zipfile.ZipFile(target) as archive:
        found = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    assert sorted(found) == sorted(said)
    return found


@pytest.mark.slow
def test_code_is_shipped_whole_and_alone(checkout):
    """Ray packs the same files as `shipped` names: all of the program's, none of what was planted."""
    found = packed_by_ray(checkout)
    tracked = {
        str(path.relative_to(ROOT))
        for room in code_upload.PACKAGES
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert (
        set(found) == tracked
        and "jobs/report/report.html.jinja" in found
        and "ssl_core/storage/object_store.py" in found
    )
    assert b"planted" not in found.values()


def test_every_room_is_shipped():
    """A room that is new to the import rules is new to the cluster too."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
    assert set(code_upload.PACKAGES) == set(known)


def test_job_inherits_its_own_code(monkeypatch):
    assert code_upload.runtime_env() == code_upload.working_dir_options()
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert code_upload.runtime_env() == {}


def test_files_of_plug_ins_are_sent_beside_the_code(tmp_path, monkeypatch):
    """With a name that is found there, and whatever the folder that they lie in holds."""
    (tmp_path / "mine.py").write_text("MINE = 1")
    (tmp_path / "other.py").write_text("planted")
    monkeypatch.setenv(code_upload.PLUGINS, str(tmp_path / "mine.py"))
    monkeypatch.setenv(code_upload.PLUGIN_DIGESTS, "mine=0")
    sent = code_upload.runtime_env()
    place = Path(sent["working_dir"])
    packed = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    code = {str(path.relative_to(ROOT)) for path in code_upload.uploaded_files() if path.is_relative_to(ROOT)}
    assert packed == code | {"plugins/mine.py"} and (place / "plugins/mine.py").read_text() == "MINE = 1"
    assert sent["env_vars"] == {code_upload.PLUGINS: "plugins/mine.py", code_upload.PLUGIN_DIGESTS: "mine=0"}
    assert sent["excludes"] == []
    monkeypatch.chdir("/")
    monkeypatch.setenv(plugin_files.VARIABLE, "plugins/mine.py")
    monkeypatch.setattr(plugin_files, "ROOT", place)
    assert plugin_files.plugin_files() == {"mine": place / "plugins/mine.py"}


def test_both_sides_name_the_same_variables():
    assert (code_upload.PLUGINS, code_upload.PLUGIN_DIGESTS) == (plugin_files.VARIABLE, plugin_files.DIGESTS)
