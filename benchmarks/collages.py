"""`python -m benchmarks.collages FOLDER`: makes images with masks, collages of CIFAR-10's photos, for dense transfer.

Each image has four photos of 24 to 48 pixels a side at random places, the later ones above, on smooth noise of 96
pixels a side. Its mask has the photos' classes from 1 on, and 0 for the noise. Training images have photos of the
training split, test images those of the test split.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_core.data.dataset import open_source
from ssl_core.data.split import Split

SIDE, PHOTOS, SMALLEST, LARGEST = 96, 4, 24, 48
COUNTS = {"train": 2400, "val": 600}
BICUBIC = Image.Resampling.BICUBIC


def write(root: Path, counts: dict[str, int] = COUNTS) -> None:
    """Writes images/{train,val}, masks/{train,val} and classes.txt.

    Args:
        root: The folder.
        counts: How many images each part has.
    """
    photos, rng = open_source("cifar10"), np.random.default_rng(0)
    for part, count in counts.items():
        folders = [root / kind / part for kind in ("images", "masks")]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image, mask = _collage(photos.train if part == "train" else photos.test, rng)
            Image.fromarray(image).save(folders[0] / f"{i:05d}.jpg", quality=92)
            Image.fromarray(mask).save(folders[1] / f"{i:05d}.png")
    (root / "classes.txt").write_text("\n".join(["noise", *photos.classes]) + "\n")


def _collage(split: Split, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns an image, [SIDE, SIDE, 3] uint8, and its mask."""
    assert split.pixels is not None  # CIFAR-10 is kept decoded
    noise = Image.fromarray(rng.integers(0, 256, (6, 6, 3)).astype(np.uint8))
    image, mask = np.array(noise.resize((SIDE, SIDE), BICUBIC)), np.zeros((SIDE, SIDE), np.uint8)
    for _ in range(PHOTOS):
        number, side = int(rng.integers(len(split))), int(rng.integers(SMALLEST, LARGEST + 1))
        top, left = rng.integers(0, SIDE + 1 - side, 2)
        place = slice(top, top + side), slice(left, left + side)
        image[place] = np.asarray(Image.fromarray(split.pixels[number]).resize((side, side), BICUBIC))
        mask[place] = 1 + split.labels[number]
    return image, mask


if __name__ == "__main__":
    write(Path(sys.argv[1]))
