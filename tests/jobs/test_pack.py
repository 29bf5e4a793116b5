"""`tilespin pack` as a user meets it: refusals, kills, and training from what it leaves."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.command import ROOT, complaint, forked

from jobs.commands import pack
from ssl_core.data.dataset import open_source
from ssl_core.errors import UserError
from ssl_core.storage.records import EncoderRecord


@pytest.fixture(scope="module")
def noise(tmp_path_factory) -> Path:
    """Two classes of 150 lossless images of 96 px, four of which appear twice: 8 MB when packed raw."""
    root, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for i in range(300):
        path = root / "ab"[i % 2] / f"{i:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (96, 96, 3), np.uint8)).save(path, compress_level=0)
    for i in range(4):
        shutil.copy(root / "a" / "000.png", root / "b" / f"again {i}.png")
    return root


def contents(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}


@pytest.mark.slow
def test_trains_from_what_it_packed(tilespin, photos, tmp_path):
    """Broken files are named and left out; the packed dataset does wherever --data goes."""
    done = tilespin("pack", photos, tmp_path / "packed", "--side", 64)
    assert "20 images (20 train, 0 test) in 1 shard\n" in done.stdout
    assert "left out: 3 that cannot be decoded, 0 duplicates" in done.stdout
    assert "truncated.jpg" in (tmp_path / "packed" / "skipped.txt").read_text()
    arguments = ["--data", tmp_path / "packed", "--size", 48, "--steps", 4, "--batch", 8, "--wandb", "off"]
    done = tilespin("pretrain", "rotnet", *arguments, "--storage", tmp_path / "runs")
    assert "4 steps, 32 images" in done.stdout and "skipped" not in done.stdout
    (path,) = tmp_path.glob("runs/packed/pretrain/*/encoder.json")
    assert EncoderRecord.read(path).training.skipped == ()


@pytest.mark.slow
def test_killed_packing_continues_to_the_same_bytes(tilespin, noise, tmp_path):
    """SIGKILL in the middle, the same command again: finished shards stay, and all is as if nothing had happened."""
    options = ["--lossless", "--shard-mb", "1", "--drop-duplicates"]
    done = tilespin("pack", noise, tmp_path / "whole", *options)
    assert "4 duplicates" in done.stdout
    place = tmp_path / "killed"
    with forked("pack", noise, place, *options) as child:
        while child.poll() is None:
            if len(list(place.glob(".pack/shard-*.json"))) >= 2:
                child.send_signal(signal.SIGKILL)
                break
            time.sleep(0.001)
        assert child.wait().returncode == -signal.SIGKILL and not (place / "index.json").exists()
    finished = [place / f"{path.stem}.tar" for path in place.glob(".pack/shard-*.json")]
    written = {path: path.stat().st_mtime_ns for path in finished}
    (place / ".shard-000007.tar.1.1").write_bytes(b"torn")
    with pytest.raises(UserError, match="not packed to the end"):
        open_source(str(place))
    done = tilespin("pack", noise, place, *options)
    assert f"{len(finished)} of them already there" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in finished} == written
    assert contents(place) == contents(tmp_path / "whole")


@pytest.mark.ray
def test_two_shards_at_once_on_ray_give_the_same_bytes(tilespin, noise, tmp_path):
    for name, workers in (("here", 0), ("ray", 2)):
        tilespin("pack", noise, tmp_path / name, "--shard-mb", 1, "--side", 64, "--workers", workers)
    assert contents(tmp_path / "here") == contents(tmp_path / "ray")
    assert len(contents(tmp_path / "ray")) > 4


@pytest.fixture
def packed(shapes, tmp_path):
    pack.main([str(shapes), str(tmp_path / "packed")])
    return tmp_path / "packed"


def test_the_same_command_repairs(shapes, packed, capsys):
    before = contents(packed)
    os.truncate(packed / "shard-000000.tar", 5000)
    (packed / "packed.npy").unlink()
    with pytest.raises(UserError, match="run the same tilespin pack again"):
        open_source(str(packed))
    open_source.cache_clear()
    pack.main([str(shapes), str(packed)])
    assert "1 of them already there" in capsys.readouterr().out
    assert contents(packed) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--side", "128"], "was packed with --side 256, not 128"),
        (["--quality", "70"], "was packed with --quality 90, not 70"),
        (["--lossless"], "was packed with --lossless False, not True: choose"),
        (["--shard-mb", "5", "--drop-duplicates"], "--shard-mb 64, not 5, --drop-duplicates False, not True"),
    ],
)
def test_other_options_need_another_folder(shapes, packed, options, words):
    with pytest.raises(UserError, match=words):
        pack.main([str(shapes), str(packed), *options])


def test_other_images_need_another_folder(photos, packed):
    with pytest.raises(UserError, match="from other images"):
        pack.main([str(photos), str(packed)])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["/no/such", "DST"], "/no/such: no such folder, and not one of the known datasets"),
        (["SRC", "SRC/inside"], "lies inside"),
        (["URL", "SRC/inside"], "lies inside"),
        (["SRC", "nosuch://bucket/packed"], "pack nosuch://bucket/packed: Protocol not known"),
        (["memory://bucket/data", "memory://bucket/data/packed"], "lies inside"),
        (["SRC", "SRC"], "lies inside"),
        (["SRC", "FULL"], "holds something else"),
        (["SRC", "FULL/file"], "is a file"),
        (["SRC", "DST", "--side", "7"], "--side is 7, expected 8 to 4096"),
        (["SRC", "DST", "--quality", "0"], "--quality is 0, expected 1 to 100"),
        (["SRC", "DST", "--shard-mb", "0"], "--shard-mb is 0, expected 1 to 1024"),
        (["SRC", "DST", "--workers", "-1"], "--workers is -1"),
        (["FULL", "DST"], "no images in this folder"),
    ],
)
def test_impossible_wishes_are_refused(shapes, tmp_path, arguments, words):
    (tmp_path / "FULL").mkdir()
    (tmp_path / "FULL" / "file").write_text("somebody's")
    places = {"SRC": str(shapes), "DST": str(tmp_path / "DST"), "FULL": str(tmp_path / "FULL")}
    places["URL"] = f"file://{shapes}"
    told = ["/".join([places.get(word.split("/")[0], word.split("/")[0]), *word.split("/")[1:]]) for word in arguments]
    with pytest.raises(UserError, match=words):
        pack.main(told)
    assert not (tmp_path / "DST").exists() and not (shapes / "inside").exists()


@pytest.mark.slow
def test_bad_input_ends_the_process_with_two(tilespin, shapes):
    done = tilespin("pack", shapes, shapes / "inside", code=2)
    error = complaint(done.stderr)
    assert error.count("\n") == 1 and error.startswith("tilespin: ")


def test_two_at_once_do_not_meet(shapes, tmp_path):
    """A second driver is refused while the first works, in whichever process it is."""
    place = tmp_path / "packed"
    hold = (
        "import sys, time; from pathlib import Path; from jobs.study.folder import Study\n"
        "with Study(Path(sys.argv[1])).lock(): print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", hold, str(place / ".pack")], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="is being worked on by process"):
            pack.main([str(shapes), str(place)])
    finally:
        child.kill()
        child.wait()


@pytest.mark.ray
def test_a_shard_whose_process_died_is_written_by_another(shapes, tmp_path, capsys, monkeypatch):
    died, call = tmp_path / "died", pack.pack_one

    def dies_once(*arguments) -> dict:
        if not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments)

    monkeypatch.setattr(pack, "pack_one", dies_once)
    pack.main([str(shapes), str(tmp_path / "packed"), "--workers", "1"])
    said = capsys.readouterr()
    assert "attempt 2" in said.err and "240 images" in said.out


def test_a_shard_that_cannot_be_written_fails_alone(shapes, tmp_path, monkeypatch, capsys):
    """The traceback is kept, the other shards are packed, and the same command ends it."""
    finish = pack.finish_shard

    def full_disk(path, *rest):
        if path.name == "shard-000000.tar":
            raise OSError("no space left on device")
        return finish(path, *rest)

    monkeypatch.setattr(pack, "finish_shard", full_disk)
    place = tmp_path / "packed"
    with pytest.raises(pack.JobsFailed, match="1 of 2 shards failed"):
        pack.main([str(shapes), str(place)])
    assert "no space left" in capsys.readouterr().err
    assert list(place.glob(".pack/failures/*.txt")) and not (place / "index.json").exists()
    monkeypatch.undo()
    pack.main([str(shapes), str(place)])
    assert "1 of them already there" in capsys.readouterr().out
