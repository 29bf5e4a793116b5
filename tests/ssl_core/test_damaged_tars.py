"""Tar files that are damaged, cut off or hostile: what lies before is used, and the scan ends."""

import errno
import os
import tarfile

import numpy as np
import pytest
import torch
from support.tar_files import open_shards, picture, write

from ssl_core.data import tar_shards
from ssl_core.data.dataset import open_source
from ssl_core.data.loaders.cpu import CpuLoader
from ssl_core.errors import UserError

pytestmark = pytest.mark.usefixtures("cache")


@pytest.mark.parametrize("keep", [0.3, 0.311, 0.5, 0.55])
def test_what_lies_before_a_cut_is_used(shards, keep):
    path = shards / "set-1.tar"
    os.truncate(path, int(path.stat().st_size * keep))
    source = open_source(str(shards))
    keys = [int(split.name(i).split(": ")[1]) for split in (source.train, source.test) for i in range(len(split))]
    left = sorted(key for key in keys if 10 <= key < 20)
    assert left == list(range(10, 10 + len(left))) and 1 < len(left) < 10
    assert set(keys) >= {*range(10), *range(20, 30)}
    assert any(f"set-1.tar is damaged, {len(left)} images of it are used" in note for note in source.notes)
    for batch in CpuLoader(source.train, 16, torch.device("cpu"), 1).evaluation(np.arange(len(source.train))):
        assert batch.weights.all()


def test_what_lies_before_a_broken_header_is_used(shards):
    path = shards / "set-1.tar"
    with tarfile.open(path) as tar:
        middle = tar.getmembers()[10].offset
    data = bytearray(path.read_bytes())
    data[middle + 148 : middle + 156] = b"?" * 8  # the checksum
    path.write_bytes(data)
    source = open_source(str(shards))
    assert len(source.train) + len(source.test) == 25
    assert f"5 images of it are used: neither a header nor the end mark at byte {middle:,}" in source.notes[0]


@pytest.mark.parametrize("data", [b"", b"no tar at all" * 100, bytes(10_240)])
def test_tars_without_images(shards, data):
    (shards / "set-1.tar").write_bytes(data)
    source = open_source(str(shards))
    assert len(source.train) + len(source.test) == 20
    assert any("set-1.tar is damaged" in note for note in source.notes) == bool(data != bytes(10_240))
    for path in shards.iterdir():
        path.write_bytes(data)
    open_source.cache_clear()
    with pytest.raises(UserError, match="no images in its tar files"):
        open_source(str(shards))


@pytest.mark.slow
def test_random_damage_never_stops_the_scan(shards):
    whole, random = (shards / "set-0.tar").read_bytes(), np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(whole)
        for place in random.integers(0, len(data) // 512, 4) * 512 + random.integers(0, 345, 4):
            data[place] = random.integers(0, 256)
        (shards / "set-0.tar").write_bytes(data)
        found = tar_shards._scan_shards(open_shards(shards))
        ends = found["offsets"][:, 1] + found["offsets"][:, 2]
        assert (found["offsets"][:, 1:3] >= 0).all() and (ends <= len(data)).all()
        assert len(found["labels"]) == len(found["names"]) == len(found["offsets"]) >= 20


def test_a_size_below_zero_ends_the_scan(shards):
    """As base-256 numbers allow, which would send a reader backwards for ever."""
    path = shards / "set-1.tar"
    data = bytearray(path.read_bytes())
    data[124:136] = b"\xff" * 10 + b"\x00\x00"
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + 8 * 32 + sum(data[156:512]))
    path.write_bytes(data)
    source = open_source(str(shards))
    assert len(source.train) + len(source.test) == 20 and any("set-1.tar is damaged" in note for note in source.notes)


def header(kind: bytes, size: int, name: bytes = b"x", more: bytes = b"") -> bytes:
    """One that tells any size; `more` stands at the place of a sparse file's map."""
    data = bytearray(512)
    data[: len(name)], data[100:108], data[156:157] = name, b"0000644\0", kind
    data[124:136] = b"\x80" + size.to_bytes(11, "big")
    data[257:265] = b"ustar  \0"
    data[386 : 386 + len(more)] = more
    data[148:156] = b"%06o\0 " % (sum(data) + 8 * 32)
    return bytes(data)


@pytest.mark.parametrize(
    "hostile",
    [
        header(b"L", 2**80) + bytes(1024),
        header(b"x", 2**80) + bytes(1024),
        header(b"L", 2**62) + bytes(1024),
        header(b"x", 2**62) + bytes(1024),
        (header(b"L", 2) + b"a".ljust(512, b"\0")) * 1500,
        header(b"S", 512, more=bytes(96) + b"\x01"),
        header(b"S", 512, more=bytes(96) + b"\x01") + b"\0" * 100,
    ],
    ids=["long name 2^80", "pax 2^80", "long name 2^62", "pax 2^62", "chain", "sparse", "sparse, cut off"],
)
def test_hostile_headers_end_the_scan(shards, hostile):
    path = shards / "set-1.tar"
    with tarfile.open(path) as tar:
        middle = tar.getmembers()[10].offset
    path.write_bytes(path.read_bytes()[:middle] + hostile)
    source = open_source(str(shards))
    assert len(source.train) + len(source.test) == 25
    assert source.notes[0].startswith("set-1.tar is damaged, 5 images of it are used: ")
    assert not source.notes[0].endswith(": ")


def test_a_name_of_many_bytes_is_passed_over(tmp_path):
    write(tmp_path / "data" / "a.tar", [("a" * 100_000 + ".png", picture(0)), ("b.png", picture(1))])
    source = open_source(str(tmp_path / "data"))
    assert [source.train.name(i) for i in range(len(source.train))] == ["a.tar: b"]


def test_what_the_disk_refuses_is_not_kept(shards, monkeypatch):
    """A passing fault must not be remembered as damage."""
    with monkeypatch.context() as patch:
        patch.setattr(tar_shards, "_tar_members", failing)
        with pytest.raises(UserError, match=r"set-0\.tar cannot be read: Permission denied"):
            open_source(str(shards))
    source = open_source(str(shards))
    assert len(source.train) + len(source.test) == 30


def failing(path):
    raise PermissionError(errno.EACCES, "Permission denied", str(path))
