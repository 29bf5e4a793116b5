"""Fashion-MNIST (Xiao et al. 2017, MIT license): 60,000 + 10,000 gray images of 28 px in 10 classes."""

import gzip
import hashlib
import urllib.request
from pathlib import Path

import numpy as np

from ssl_core.data.dataset import Arrays, Source, resized
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


def opens(data: str) -> bool:
    return data == NAME


def load(data: str, size: int | None) -> Source:
    found = cache.cached_arrays(NAME, fetch, tuple(FILES))
    parts = []
    for part in ("train", "test"):
        color = np.repeat(found[f"{part}_images"][..., None], 3, axis=3)  # the encoders take three channels
        parts.append(Arrays(resized(color, size), found[f"{part}_labels"].astype(np.int64)))
    return Source(NAME, DIGEST, size or 28, *parts, CLASSES, MEAN, STD)


def fetch() -> dict[str, np.ndarray]:
    """The arrays from the Debian package's files where they are, else from the authors' site."""
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
    total = hashlib.sha256()
    for key in FILES:
        total.update(np.ascontiguousarray(arrays[key]).tobytes())
    return total.hexdigest()


def parse_idx(data: bytes) -> np.ndarray:
    """A gzipped IDX file of unsigned bytes (LeCun's MNIST format) -> its array."""
    raw = gzip.decompress(data)
    rank = raw[3]
    shape = np.frombuffer(raw, ">u4", rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)
