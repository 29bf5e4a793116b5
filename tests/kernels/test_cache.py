"""Where caches go on machines that give no place for them: every case in a process of its own, as it changes its
environment."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VARIABLES = (
    "HOME",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "TILESPIN_CACHE",
    "HF_HOME",
    "TRITON_HOME",
    "TMPDIR",
    "RAY_TMPDIR",
)
CALL = f"""
import json, os
from kernels import cache
cache.prepare()
cache.prepare()
found = {{"folder": str(cache.folder()), "wanted": str(cache.requested_folder())}}
print(json.dumps(found | {{name: os.environ.get(name) for name in {VARIABLES}}}))
"""


def found(tmp_path: Path, *before: str, code: int = 0, **variables: str) -> tuple[dict, list[str]]:
    """What a process finds in such an environment, started by the command `before` -> (its folders, its stderr)."""
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    (tmp_path / "tmp").mkdir(exist_ok=True)
    env = kept | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "tmp")} | variables
    command = [*before, sys.executable, "-c", CALL]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if done.stdout else {}, done.stderr.splitlines()


def private(tmp_path: Path) -> str:
    return str(tmp_path / "tmp" / f"tilespin-{os.geteuid()}")


def test_where_all_is_well_nothing_is_said_and_nothing_is_set(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    place, lines = found(tmp_path, HOME=str(home))
    assert place["folder"] == f"{home}/.cache/tilespin" and not lines
    assert place["XDG_CACHE_HOME"] is place["TRITON_HOME"] is None and not list((tmp_path / "tmp").iterdir())


def test_a_temporary_folder_may_be_written_in_any_way(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    assert not found(tmp_path, HOME=str(home), TMPDIR=f"{tmp_path}/tmp/")[1]
    assert not found(tmp_path, HOME=str(home), TMPDIR="tmp")[1]


@pytest.mark.parametrize("home", ["/proc/none", "/dev/null", "/proc/self/nobody/x"])
def test_a_home_that_cannot_be_is_replaced_for_every_library(tmp_path, home):
    place, lines = found(tmp_path, HOME=home)
    assert place["HOME"] == private(tmp_path) and place["folder"].startswith(private(tmp_path))
    assert len(lines) == 1 and lines[0].startswith(f"tilespin: {home} cannot be written")
    assert private(tmp_path) in lines[0] and Path(private(tmp_path)).stat().st_mode & 0o777 == 0o700


def test_a_user_whom_the_system_does_not_know(tmp_path):
    """As in containers that are started with a number for a user."""
    unknown = ("unshare", "--user", "--map-user=1234", "--map-group=1234")
    if subprocess.run([*unknown, "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    place, lines = found(tmp_path, *unknown)
    assert place["HOME"] == str(tmp_path / "tmp" / "tilespin-1234") and len(lines) == 1
    assert "this user has no home folder" in lines[0] and not (tmp_path / "~").exists()


def test_what_lies_in_a_home_that_can_only_be_read_is_read_there(tmp_path):
    home = tmp_path / "home"
    for name in ("tilespin", "huggingface"):
        (home / ".cache" / name).mkdir(parents=True)
    read_only = (
        "unshare",
        "-m",
        "sh",
        "-c",
        f'mount --bind "{home}" "{home}" && mount -o remount,ro,bind "{home}" && exec "$@"',
        "sh",
    )
    if subprocess.run([*read_only, "true"], capture_output=True).returncode:
        pytest.skip("only root may mount")
    place, lines = found(tmp_path, *read_only, HOME=str(home))
    assert place["HOME"] == str(home), "where keys and settings lie"
    assert place["HF_HOME"] == f"{home}/.cache/huggingface" and place["wanted"] == f"{home}/.cache/tilespin"
    assert place["folder"] == place["TRITON_HOME"] == private(tmp_path)
    assert place["XDG_CACHE_HOME"] == f"{private(tmp_path)}/.cache" and len(lines) == 1


@pytest.mark.parametrize("name", ["XDG_CACHE_HOME", "TILESPIN_CACHE"])
def test_a_file_where_a_folder_should_be(tmp_path, name):
    (tmp_path / "file").touch()
    place, lines = found(tmp_path, HOME=str(tmp_path), **{name: str(tmp_path / "file")})
    assert place["folder"].startswith(private(tmp_path)) and place["HOME"] == str(tmp_path)
    assert len(lines) == 1 and f"{tmp_path}/file cannot be written" in lines[0]


def test_a_full_disk(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("only root may mount")
    try:
        (small / "full").write_bytes(bytes(8192))
        place, lines = found(tmp_path, HOME=str(tmp_path), TILESPIN_CACHE=str(small))
    finally:
        subprocess.run(["umount", small], check=True)
    assert place["folder"] == private(tmp_path) and "No space left" in lines[0]


@pytest.mark.parametrize("kind", ["open", "link", "file"])
def test_a_folder_that_others_may_have_prepared_is_not_used(tmp_path, kind):
    place = Path(private(tmp_path))
    place.parent.mkdir()
    if kind == "open":
        place.mkdir()
        place.chmod(0o777)
    elif kind == "link":
        (tmp_path / "trap").mkdir(mode=0o700)
        place.symlink_to(tmp_path / "trap")
    else:
        place.touch()
    other, lines = found(tmp_path, HOME="/proc/none")
    assert other["HOME"].startswith(f"{place}-") and other["HOME"] in lines[0]
    assert Path(other["HOME"]).stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "trap").exists() or not list((tmp_path / "trap").iterdir())


def test_a_temporary_folder_that_is_not_there(tmp_path):
    """Python takes another; Ray, and what else asks for TMPDIR, are told so."""
    place, lines = found(tmp_path, HOME=str(tmp_path), TMPDIR="/proc/none")
    assert os.path.isdir(place["TMPDIR"]) and len(lines) == 1 and "TMPDIR=/proc/none cannot be written" in lines[0]


def test_a_path_that_is_too_long_for_sockets(tmp_path):
    long = tmp_path / ("long" * 20)
    long.mkdir()
    assert found(tmp_path, HOME=str(tmp_path), TMPDIR=str(long))[0]["RAY_TMPDIR"] == "/tmp"
