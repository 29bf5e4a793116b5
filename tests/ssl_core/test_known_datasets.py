"""CIFAR-10 and Fashion-MNIST: their content, and how they are fetched."""

import gzip
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image
from support.synthetic_images import arrays, gradients

from ssl_core.data.dataset import Source, open_source
from ssl_core.data.resize import resized
from ssl_core.data.sources import cifar10, fashion_mnist
from ssl_core.errors import UserError


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


@pytest.mark.slow
def test_cifar10_statistics_are_of_its_training_images(cifar):
    mean, std = moments(cifar.train.images)
    assert cifar.mean == pytest.approx(mean, abs=1e-3)
    assert cifar.std == pytest.approx(std, abs=1e-3)


@pytest.mark.slow
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
