"""The random words: published vectors, independence of the batch, and what is drawn from the words."""

import pytest
import torch

from kernels import random as sampling
from kernels.random import RandomBits, draw, philox, randint, uniform

# Known answers for philox4x32-10 of Random123 (github.com/DEShawResearch/random123, tests/kat_vectors).
VECTORS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), VECTORS)
def test_rounds_give_the_published_words(counter, key, words):
    assert tuple(int(w) for w in philox(tuple(map(torch.tensor, counter)), key)) == words


def test_draw_gives_the_published_words():
    zero = torch.zeros(1, dtype=torch.int64)
    assert draw(zero, zero, seed=0, stream=0, count=4).tolist() == [list(VECTORS[0][2])]


def test_counter_layout():
    ids, epochs = torch.tensor([-1, 2**40 + 5]), torch.tensor([3, 2**32 - 1])
    words = draw(ids, epochs, seed=9, stream=2**32 - 1, count=6)
    for row, (low, high) in enumerate(((2**32 - 1, 2**32 - 1), (5, 2**8))):
        counter = tuple(torch.tensor(v) for v in (1, int(epochs[row]), low, high))
        assert words[row, 4:].tolist() == [int(w) for w in philox(counter, (9, 2**32 - 1))[:2]]


def test_draws_do_not_depend_on_the_batch():
    ids, epochs = torch.arange(50), torch.full((50,), 2)
    together = RandomBits(ids, epochs, 1).draw("rotations", 5)
    alone = torch.cat([RandomBits(ids[i : i + 1], epochs[i : i + 1], 1).draw("rotations", 5) for i in range(50)])
    assert torch.equal(together, alone)
    assert torch.equal(RandomBits(ids, epochs, 1).draw("rotations", 3), together[:, :3])
    for other in (RandomBits(ids, epochs, 2), RandomBits(ids, epochs + 1, 1), RandomBits(ids + 50, epochs, 1)):
        assert (other.draw("rotations", 5) != together).float().mean() > 0.99
    assert (RandomBits(ids, epochs, 1).draw("flips", 5) != together).float().mean() > 0.99


def test_draws_are_uniform():
    words = draw(torch.arange(20000), torch.zeros(20000, dtype=torch.int64), seed=0, stream=1, count=5)
    values = uniform(words)
    assert values.dtype == torch.float32 and values.min() >= 0 and values.max() < 1
    assert abs(values.mean() - 0.5) < 0.005 and abs(values.var() - 1 / 12) < 0.002
    shares = randint(words, 4).flatten().bincount(minlength=4) / words.numel()
    assert shares.shape == (4,) and (shares - 0.25).abs().max() < 0.006


def test_below_reaches_its_ends():
    ends = torch.tensor([0, 2**32 - 1])
    assert randint(ends, 2**31 - 1).tolist() == [0, 2**31 - 2]
    assert randint(ends, torch.tensor([7, 7])).tolist() == [0, 6]
    assert uniform(ends).tolist() == [0.0, 1 - 2**-24]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("seed", {"seed": 2**32}),
        ("seed", {"seed": -1}),
        ("stream", {"stream": 0.5}),
        ("count", {"count": -1}),
        ("ids", {"ids": torch.zeros(2)}),
        ("ids", {"ids": torch.zeros(2, 1, dtype=torch.int64)}),
        ("epochs", {"epochs": torch.zeros(3, dtype=torch.int64)}),
    ],
)
def test_names_the_bad_argument(name, change):
    zero = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=f"^{name}: got .*; expected "):
        draw(**{"ids": zero, "epochs": zero, "seed": 0, "stream": 0, "count": 1, **change})
    with pytest.raises(ValueError, match=r"^bound: got 0; expected "):
        sampling.randint(zero, 0)
