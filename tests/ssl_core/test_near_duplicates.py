"""Near copies: what was saved again or resized is found, what is unlike is not, and no pair is lost to the search."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image
from support import jpegs

from ssl_core.data.dataset import Arrays, Files
from ssl_core.data.near_duplicates import MAX_DISTANCE, Fingerprints, fingerprints, near_pairs


def picture(seed: int, size: tuple[int, int] = (180, 140)) -> Image.Image:
    """A picture with much in it, in random colors."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def pairs(tmp_path, some: Sequence[bytes], others: Sequence[bytes]) -> dict[int, int]:
    splits = []
    for name, files in (("some", some), ("others", others)):
        (tmp_path / name).mkdir()
        splits.append(jpegs.put(tmp_path / name, *files))
    one, other = (fingerprints(split, np.arange(len(split))) for split in splits)
    assert not one.unreadable and not other.unreadable
    return near_pairs(one.prints, other.prints).first


def test_what_was_saved_again_or_resized_is_found(tmp_path):
    """Among forty others; 400 pictures have no pair by chance."""
    original = [picture(seed) for seed in range(6)]
    changed = [
        jpegs.jpeg(original[0], quality=30),
        png(original[1].resize((90, 70))),
        jpegs.jpeg(original[2].resize((500, 400)), quality=80),
        png(original[3].point(lambda value: value * 0.8 + 20)),
        jpegs.jpeg(original[4].crop((2, 2, 178, 138)), quality=60),
        png(original[5].rotate(90)),
    ]
    others = [jpegs.jpeg(picture(seed), quality=92) for seed in range(40)]
    assert pairs(tmp_path, changed, others) == {i: i for i in range(5)}, "a picture that was turned is another one"


def test_unlike_images_are_no_pairs():
    images = np.stack([np.asarray(picture(seed, (32, 32))) for seed in range(400)])
    prints = fingerprints(Arrays(images, np.zeros(400, np.int64)), np.arange(400)).prints
    half = np.arange(400) < 200
    assert near_pairs(prints.rows(half), prints.rows(~half)).pairs == 0


def test_the_same_in_other_colors_is_no_pair():
    image = np.asarray(picture(0, (32, 32)))
    gray = image @ [0.299, 0.587, 0.114]
    tinted = [
        np.clip(gray[..., None] * tint, 0, 255).astype(np.uint8) for tint in ((0.96, 0.16, 0.16), (0.07, 0.07, 0.95))
    ]
    found = fingerprints(Arrays(np.stack(tinted), np.zeros(2, np.int64)), np.arange(2)).prints
    assert np.bitwise_count(found.hashes[0] ^ found.hashes[1]) <= MAX_DISTANCE, "it is bright in the same places"
    assert near_pairs(found.rows([0]), found.rows([1])).pairs == 0


def test_images_of_one_color_are_not_compared(tmp_path):
    """They are all alike, and it would say nothing."""
    files = [png(Image.new("RGB", (20, 20), color)) for color in ("red", "blue", "white")] + [png(picture(0)), b"none"]
    found = fingerprints(jpegs.put(tmp_path, *files), np.arange(5))
    assert found.prints.ids.tolist() == [3] and found.plain == 3 and list(found.unreadable) == [4]


@pytest.mark.parametrize("candidates", [1, 50, 2**20])
def test_the_search_finds_what_comparing_all_finds(monkeypatch, candidates):
    """With pairs at every distance around the limit, repeated ones, and hashes that have most pieces in common."""
    monkeypatch.setattr("ssl_core.data.near_duplicates.CANDIDATES", candidates)
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 60, np.uint64)
    hashes[40:] = hashes[0]
    flips = [rng.choice(64, count, replace=False) for count in np.arange(120) % (MAX_DISTANCE + 3)]
    masks = np.array([np.bitwise_or.reduce(np.uint64(1) << bits.astype(np.uint64)) for bits in flips], np.uint64)
    changed = np.tile(hashes, 2) ^ masks
    colors = np.tile(rng.integers(0, 256, 192).astype(np.uint8), (120, 1))
    some, others = Fingerprints(np.arange(60) + 7, hashes, colors[:60]), Fingerprints(np.arange(120), changed, colors)
    near = np.bitwise_count(hashes[:, None] ^ changed[None]) <= MAX_DISTANCE
    found = near_pairs(some, others)
    assert found.pairs == near.sum() > 60
    assert found.first == {i + 7: int(row.argmax()) for i, row in enumerate(near) if row.any()}


def test_what_would_take_too_long_is_given_up(tmp_path):
    split: Files = jpegs.put(tmp_path, *[jpegs.jpeg(picture(seed)) for seed in range(3)])
    with pytest.raises(TimeoutError):
        fingerprints(split, np.arange(3), seconds=0)
