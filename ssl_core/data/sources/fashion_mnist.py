"""Fashion-MNIST (Xiao et al. 2017, MIT license): 60,000 + 10,000 gray images of 28 px in 10 classes."""

import gzip
import hashlib
import urllib.request
from pathlib import Path

import numpy as np

from ssl_core.data.data_source import DataSource
from ssl_core.data.dataset import Arrays, Source
from ssl_core.data.resize import resized
from ssl_core.errors import UserError
from ssl_core.storage import cache

NAME = "fashion-mnist"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # the package dataset-fashion-mnist
ORIGIN = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
FILES = {
    "train_images": "train-images-idx3-ubyte.gz",
    "train_labels": "train-labels-idx1-ubyte.gz",
    "test_images": "t10k-images-idx3-ubyte.gz",
    "test_labels": "t10k-labels-idx1-ubyte.gz",
}
# sha256 over the decoded arrays in the order of FILES
DIGEST = "ca3ab2a37f845e1b8ae23cab1b51749a3011ba3bf1d9016176d75cbaabac376f"
CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
MEAN, STD = (72.940,) * 3, (90.021,) * 3  # of the training images


class FashionMNIST(DataSource):
    """Opens Fashion-MNIST by its name."""

    name = NAME

    def opens(self, data: str) -> bool:
        """Returns whether a value of --data is this dataset's name."""
        return data == NAME

    def load(self, data: str, size: int | None) -> Source:
        """Loads the dataset from the cache, or fetches it the first time.

        Args:
            data: Its name.
            size: The side in pixels that images are delivered at; None: their own, 28.

        Raises:
            UserError: If it cannot be fetched.
        """
        found = cache.cached_arrays(NAME, fetch, tuple(FILES))

        def split(part: str) -> Arrays:
            color = np.repeat(found[f"{part}_images"][..., None], 3, axis=3)  # the encoders take three channels
            return Arrays(resized(color, size), found[f"{part}_labels"].astype(np.int64))

        return Source(NAME, DIGEST, size or 28, split("train"), split("test"), CLASSES, MEAN, STD)


def fetch() -> dict[str, np.ndarray]:
    """Reads the arrays from the Debian package's files if they are there, else from the authors' site.

    Returns:
        The arrays by the keys of FILES: images [n, 28, 28] uint8, labels [n] uint8.

    Raises:
        UserError: If they cannot be fetched or are not Fashion-MNIST's.
    """
    try:
        arrays = {key: parse_idx(_read_file(name)) for key, name in FILES.items()}
    except OSError as error:
        raise UserError(
            f"--data fashion-mnist could not be fetched: {error}; on Debian: apt-get install dataset-fashion-mnist"
        ) from error
    if (got := digest(arrays)) != DIGEST:
        raise UserError(f"--data fashion-mnist: sha256 of the decoded arrays is {got}, expected {DIGEST}")
    return arrays


def _read_file(name: str) -> bytes:
    if (DEBIAN / name).exists():
        return (DEBIAN / name).read_bytes()
    with urllib.request.urlopen(f"{ORIGIN}/{name}", timeout=10) as reply:
        return reply.read()


def digest(arrays: dict[str, np.ndarray]) -> str:
    """Returns the sha256 of the arrays' bytes, in the order of FILES."""
    total = hashlib.sha256()
    for key in FILES:
        total.update(np.ascontiguousarray(arrays[key]).tobytes())
    return total.hexdigest()


def parse_idx(data: bytes) -> np.ndarray:
    """Returns the uint8 array, of any shape, in a gzipped IDX file (LeCun's MNIST format) of unsigned bytes."""
    raw = gzip.decompress(data)
    rank = raw[3]
    shape = np.frombuffer(raw, ">u4", rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)
