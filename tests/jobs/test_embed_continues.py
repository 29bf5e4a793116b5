"""`tilespin embed` when it was stopped, on Ray, in a store, where a file is there already, and what it refuses."""

import json
import signal
import time
from pathlib import Path

import pytest
from pyarrow import parquet
from support.command import forked
from support.embedding import IN_ORDER, RANDOM, contents, run
from support.image_folders import put

from jobs.commands import embed
from jobs.config.runtime import RuntimeConfig
from jobs.embedding.parts import compute_part, load_encoder
from jobs.embedding.plan import EmbeddingConfig, make_plan
from jobs.embedding.run import MANIFEST
from ssl_core.errors import UserError

# of a command that was interrupted while it computed, and before or after
ENDS = (
    "tilespin: stopped by a signal: what ran was saved; the same command continues\n",
    "; the same command continues where it stopped\n",
)


@pytest.fixture
def splits(tmp_path) -> Path:
    """Two classes, with a test split and an unlabeled image."""
    put(tmp_path / "data", *IN_ORDER)
    return tmp_path / "data"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "end"), [(signal.SIGKILL, ".parquet"), (signal.SIGINT, ".npy")])
def test_what_was_stopped_continues_to_the_same_bytes(shapes, tmp_path, capsys, number, end):
    """A signal after two of thirty parts: these stay, the same command goes on, and nothing else is left."""
    options = "--shard", 8, "--batch", 8, "--size", 32
    place, whole = tmp_path / "stopped", tmp_path / "whole"
    place.mkdir()
    whole.mkdir()
    run(RANDOM, shapes, whole / f"f{end}", *options)
    output = place / f"f{end}"
    with forked("embed", RANDOM, "--data", shapes, "--output", output, *options) as child:
        while child.poll() is None:
            if len(list(place.glob("*.parts/part-*.json"))) >= 2:
                child.send_signal(number)
                break
            time.sleep(0.001)
        done = child.wait()
    assert done.returncode in (-number, 128 + number) and not output.exists()
    if number == signal.SIGINT:
        assert any(line in done.stderr for line in ENDS)
    kept = len(list(place.glob("*.parts/part-*.json")))
    assert 2 <= kept < 30
    capsys.readouterr()
    run(RANDOM, shapes, output, *options)
    assert f"{8 * kept} of 240 images are there already" in capsys.readouterr().err
    assert contents(place) == contents(whole) and not (place / f"f{end}.parts").exists()


@pytest.mark.ray
def test_two_workers_write_the_same_bytes(shapes, tmp_path):
    """As one process, whatever the number of threads of this."""
    options = "--shard", 50, "--batch", 16, "--size", 32, "--stage", 3
    for name, more in {"here": (), "ray": ("--workers", 2)}.items():
        (tmp_path / name).mkdir()
        run(RANDOM, shapes, tmp_path / name / "f.safetensors", *options, *more)
    assert contents(tmp_path / "here") == contents(tmp_path / "ray")


def test_finished_file_stays(splits, tmp_path, capsys):
    file = run(RANDOM, splits, tmp_path / "f.safetensors", "--size", 16)
    before = file.stat().st_mtime_ns
    run(RANDOM, splits, file, "--size", 16)
    assert "there already" in capsys.readouterr().out and file.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--output", "f.csv"], r"f\.csv: expected a name that ends with \.parquet, \.npy, \.safetensors"),
        (["--stage", "9"], "--stage 9: test_resnet has the stages 1 to 5"),
        (["--stage", "cls"], "test_resnet has no class token"),
        (["--pool", "max"], "--pool"),
        (["--batch", "0"], "--batch is 0, expected at least 1"),
        (["--workers", "-1"], "--workers is -1"),
        (["--output", "OTHER.parquet"], "OTHER.parquet is of stage 2, not 5: remove it"),
        (["--output", "OTHER.parquet", "--stage", "2", "--size", "32"], "OTHER.parquet is of size 16, not 32"),
        (["--output", "THEIRS.npy"], "THEIRS.npy is there already and is not of this command"),
        (["--output", "THEIRS.safetensors"], "THEIRS.safetensors is there already and is not of this command"),
        (["--output", "BEGUN.npy"], r"BEGUN\.npy\.parts is of stage 2, not 5: remove it"),
        (["--output", "FULL.npy"], r"FULL\.npy\.parts holds something else"),
        (["--output", "ALONE.npy"], r"ALONE\.npy\.csv is there already, without ALONE\.npy"),
        (["--output", "folder.npy"], "is a folder"),
        (["--output", "THEIRS.npy/f.npy"], "cannot be written"),
    ],
)
def test_impossible_wishes_are_refused(splits, tmp_path, options, words):
    for name in ("THEIRS.npy", "THEIRS.safetensors", "ALONE.npy.csv"):
        (tmp_path / name).write_text("somebody's file")
    for name in ("folder.npy", "FULL.npy.parts", "BEGUN.npy.parts"):
        (tmp_path / name).mkdir()
    (tmp_path / "FULL.npy.parts" / "notes.txt").write_text("somebody's")
    run(RANDOM, splits, tmp_path / "OTHER.parquet", "--stage", 2, "--size", 16)
    record = json.loads(parquet.read_schema(tmp_path / "OTHER.parquet").metadata[b"tilespin"])
    (tmp_path / "BEGUN.npy.parts" / "embedding.json").write_text(json.dumps(record))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    options = [str(tmp_path / word) if options[i - 1] == "--output" else word for i, word in enumerate(options)]
    with pytest.raises(UserError, match=words):
        run(RANDOM, splits, tmp_path / "f.npy", "--size", 16, *options)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_split_that_is_not_there(shapes, tmp_path):
    with pytest.raises(UserError, match=r"--split unlabeled: .* has no such images; there is all, train, test"):
        run(RANDOM, shapes, tmp_path / "f.npy", "--split", "unlabeled")


def test_other_weights_are_another_encoder(splits, tmp_path):
    """The same name, of a file that has changed since."""
    from safetensors.torch import save_file

    network = load_encoder(RANDOM).network
    weights = dict(network.state_dict())
    save_file({name: one.contiguous() for name, one in weights.items()}, tmp_path / "w.safetensors")
    spec = f"timm:test_resnet={tmp_path}/w.safetensors"
    run(spec, splits, tmp_path / "f.npy", "--size", 16)
    name = next(name for name, one in weights.items() if one.is_floating_point())
    weights[name] = weights[name] + 1
    save_file({name: one.contiguous() for name, one in weights.items()}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="is of another encoder"):
        run(spec, splits, tmp_path / "f.npy", "--size", 16)


@pytest.mark.parametrize("end", [".npy", ".parquet", ".safetensors"])
def test_in_a_store(splits, tmp_path, end, capsys):
    """Parts, file and what lies beside it; nothing else stays. The same command again reads what is there."""
    import fsspec

    for output in (f"memory://bucket/f{end}", tmp_path / f"f{end}", f"memory://bucket/f{end}"):
        embed.main([RANDOM, "--data", str(splits), "--output", str(output), "--size", "16", "--shard", "2"])
    assert capsys.readouterr().out.count("there already") == 1
    store = fsspec.filesystem("memory")
    found = {path.rsplit("/", 1)[1]: store.cat_file(path) for path in store.find("/bucket")}
    store.rm("/bucket", recursive=True)
    assert found == contents(tmp_path)


def test_parts_that_are_all_there_are_merged_without_ray(splits, tmp_path):
    """As after a kill that came when the last part was written; a part that was cut off is named."""
    run(RANDOM, splits, tmp_path / "whole.npy", "--size", 16, "--shard", 4)
    config, runtime = EmbeddingConfig(size=16, shard=4), RuntimeConfig(decode_threads=1)
    plan = make_plan(RANDOM, str(splits), str(tmp_path / "f.npy"), config, runtime)
    plan.embedding.record.write(plan.folder / MANIFEST)
    for number in range(2):
        compute_part(plan.embedding, number)
    part = plan.folder / "part-000001.npy"
    data = part.read_bytes()
    part.write_bytes(data[:-4])
    with pytest.raises(UserError, match=r"part-000001\.npy is damaged"):
        run(RANDOM, splits, tmp_path / "f.npy", "--size", 16, "--shard", 4, "--workers", 2)
    part.write_bytes(data)
    run(RANDOM, splits, tmp_path / "f.npy", "--size", 16, "--shard", 4, "--workers", 2)
    assert (tmp_path / "f.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert not plan.folder.exists()
