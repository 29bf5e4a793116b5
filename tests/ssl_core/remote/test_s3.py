"""Data on an S3 server on this machine are what they are on the disk."""

import shutil

import fsspec
import pytest
import torch
from support.command import complaint
from support.packing import pack
from support.parquet_files import labeled
from support.remote import CLASSES, CPU, check_each_once, pixels_of, trained

from ssl_core.data.dataset import open_source
from ssl_core.data.loaders.cpu import CpuLoader
from ssl_core.data.remote import RemoteFiles
from ssl_core.data.sampler import make_sampler
from ssl_core.errors import StorageError, UserError

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("world", [1, 3])
@pytest.mark.network
def test_trains_from_a_packed_dataset_on_s3(s3, packed, world):
    source, local = open_source(f"{s3}/packed/"), open_source(str(packed))
    steps = range(-(-3 * len(source.train) // 9))
    batches = trained(source, steps, world)
    check_each_once(source, batches, 3)
    for batch in batches:
        assert torch.equal(batch.labels, torch.from_numpy(local.train.labels)[batch.ids]) and batch.weights.all()
    alone = trained(source, steps)
    assert torch.equal(torch.cat([b.images for b in batches]), torch.cat([b.images for b in alone]))
    restarted = trained(source, range(5, steps.stop), 2)
    assert torch.equal(torch.cat([b.ids for b in restarted]), torch.cat([b.ids for b in alone[5:]]))


def test_a_packed_dataset_is_the_same_anywhere_but_for_its_order(s3, packed):
    source, local = open_source(f"{s3}/packed"), open_source(str(packed))
    assert (source.classes, source.mean, source.size, source.name) == (local.classes, local.mean, local.size, "packed")
    assert pixels_of(source) == pixels_of(local)
    assert source.digest != local.digest, "another order gives other weights"
    assert len(source.test) == len(local.test) > 0
    assert source.test.open(0).read() == local.test.open(0).read() and source.test.name(0) == local.test.name(0)


@pytest.mark.parametrize("kind", ["s3", "web", "memory", "file"])
@pytest.mark.network
def test_a_folder_in_a_store_is_the_same_as_on_the_disk(kind, folder, request):
    if kind == "memory":
        fsspec.filesystem("memory").put(f"{folder}/", "/stored/insects/", recursive=True)
        url = "memory://stored"
    elif kind == "file":
        url = f"file://{folder.parent}"
    else:
        url = request.getfixturevalue(kind)
        url = url if kind == "s3" else url.url
    source, local = open_source(f"{url}/{folder.name if kind == 'file' else 'insects'}"), open_source(str(folder))
    assert source.digest == local.digest and source.classes == local.classes == CLASSES
    assert source.notes == local.notes
    for split, same in ((source.train, local.train), (source.test, local.test)):
        assert [split.open(i).read() for i in range(len(split))] == [p.read_bytes() for p in same.paths]
        assert split.labels.tolist() == same.labels.tolist()


@pytest.mark.network
def test_a_table_beside_images_in_a_store(s3, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "insects")
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*.png"))]
    rows = "".join(f"{name},{'odd' if i % 3 else 'even'},{i}\n" for i, name in enumerate(names))
    (tmp_path / "insects" / "metadata.csv").write_text(f"file_name,kind,number\n{rows}")
    fsspec.filesystem("s3").put(f"{tmp_path}/insects/", "bucket/labeled/", recursive=True)
    source, local = open_source(f"{s3}/labeled#kind"), open_source(f"{tmp_path}/insects#kind")
    assert source.classes == local.classes == ("even", "odd") and source.digest == local.digest
    assert source.train.labels.tolist() == local.train.labels.tolist()


@pytest.fixture
def hub(s3, tmp_path):
    """Parquet shards on S3, more than a window has, and the same on this machine."""
    for number in range(10):
        labeled(tmp_path / "hub" / "data" / f"train-{number:05d}-of-00010.parquet", 5 * number, 3 + number % 3)
    labeled(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet", 100, 4)
    fsspec.filesystem("s3").put(f"{tmp_path}/hub/", "bucket/hub/", recursive=True)
    return tmp_path / "hub"


@pytest.mark.network
def test_trains_from_parquet_shards_on_s3(s3, hub):
    source, local = open_source(f"{s3}/hub"), open_source(str(hub))
    assert source.digest == local.digest and source.classes == local.classes and source.notes == local.notes
    steps = range(-(-2 * len(source.train) // 9))
    batches, near = trained(source, steps, 3), trained(local, steps)
    check_each_once(source, batches, 2)
    assert torch.equal(torch.cat([b.ids for b in batches]), torch.cat([b.ids for b in near]))
    assert torch.equal(torch.cat([b.images for b in batches]), torch.cat([b.images for b in near]))
    restarted = trained(source, range(3, steps.stop), 2)
    assert torch.equal(torch.cat([b.ids for b in restarted]), torch.cat([b.ids for b in near[3:]]))


@pytest.mark.network
def test_a_parquet_shard_that_is_gone_ends_training(s3, hub, cache):
    source = open_source(f"{s3}/hub")
    fsspec.filesystem("s3").rm("bucket/hub/data/train-00005-of-00010.parquet")
    shutil.rmtree(cache)
    with pytest.raises(StorageError, match=r"train-00005-of-00010\.parquet"):
        trained(source, range(5))


def test_trains_from_a_folder_on_s3(s3):
    source = open_source(f"{s3}/insects")
    assert isinstance(source.train, RemoteFiles)
    broken = [i for i in range(len(source.train)) if source.train.name(i) == f"{s3}/insects/ant/000.png"]
    said: list[str] = []
    loader = CpuLoader(source.train, 16, CPU, 2, said.append)
    steps = range(-(-2 * len(source.train) // 8))
    check_each_once(source, list(loader.training(make_sampler(source.train, 1), 8, steps, 0, 1)), 2, len(broken))
    assert len(said) == len(broken) and all("s3://bucket/insects/ant/000.png" in line for line in said)


def test_packs_what_is_on_s3(s3, folder, tmp_path):
    """The digest and the images are those of the folder, so every byte is."""
    for name, data in (("near", str(folder)), ("far", f"{s3}/insects")):
        pack(open_source(data), tmp_path / name, per_shard=20, side=16)
    near, far = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("near", "far"))
    assert near.pop("skipped.txt") != far.pop("skipped.txt"), "names what was skipped by its URL"
    assert near == far and len(near) > 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pretrain", "rotnet", "--data", "s3://bucket/absent"], "s3://bucket/absent: nothing is there"),
        (["pretrain", "rotnet", "--data", "s3://none/x"], "s3://none/x: nothing is there"),
        (["pretrain", "rotnet", "--data", "s3://bucket/insects/notes.txt"], "nothing is there"),
        (["pretrain", "rotnet", "--data", "nosuch://x/y"], "Protocol not known: nosuch"),
        (["pack", "s3://bucket/absent", "no/such/place"], "s3://bucket/absent: nothing is there"),
        (["pack", "s3://bucket/insects", "s3://bucket/insects/out"], "lies inside s3://bucket/insects"),
        (["pack", "s3://bucket/insects", "s3://bucket"], "s3://bucket holds something else"),
    ],
)
def test_a_bad_url_is_one_line(s3, tilespin, arguments, words):
    error = complaint(tilespin(*arguments, code=2).stderr)
    assert error.count("\n") == 1 and words in error


def test_pretrain_and_pack_on_the_command_line(s3, tilespin, tmp_path):
    done = tilespin("pack", f"{s3}/insects", tmp_path / "small", "--side", 16)
    assert "1 that cannot be decoded" in done.stdout
    arguments = ["--data", f"{s3}/packed", "--size", 16, "--steps", 3, "--batch", 8, "--wandb", "off"]
    done = tilespin("pretrain", "rotnet", *arguments, "--storage", tmp_path / "runs")
    assert "3 steps, 24 images" in done.stdout
    (config,) = tmp_path.glob("runs/packed/pretrain/*/config.json")
    assert f"{s3}/packed" in config.read_text()


def test_no_credentials(s3, monkeypatch, hasty):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nonexistent")
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(UserError, match="no permission"):
        open_source(f"{s3}/packed")
    fsspec.filesystem("s3").clear_instance_cache()
