"""What all loaders of encoded images have in common, and how one of them is chosen."""

import io
import os
from functools import partial
from itertools import pairwise
from signal import SIGINT, pthread_kill
from threading import Event, Thread, main_thread
from time import perf_counter

import numpy as np
import pytest
import torch
from PIL import Image
from support.loaders import KINDS, each_kind
from support.synthetic_images import arrays

import ssl_core.data.loaders.resident as resident
import ssl_core.data.loaders.select as loader
from ssl_core.data.dataset import Files, Packed, Source, open_source
from ssl_core.data.decoding.decode import decode, read_fast_path, read_image
from ssl_core.data.loaders.cpu import CpuLoader
from ssl_core.data.loaders.resident import ResidentLoader, bytes_needed, sample_ids
from ssl_core.data.loaders.select import dali_installed
from ssl_core.data.sampler import ShuffledSampler
from ssl_core.errors import StorageError, UserError
from ssl_core.storage.retry import RetryDeadline

CPU = torch.device("cpu")
SIDE = 70


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.BICUBIC)


def jpeg(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "jpeg", **options)
    return file.getvalue()


def put(folder, *files: bytes) -> Files:
    for number, data in enumerate(files):
        (folder / f"{number:03d}.jpg").write_bytes(data)
    return Files(sorted(folder.iterdir()), np.arange(len(files)))


@pytest.fixture
def photos(tmp_path) -> Files:
    """JPEGs of many shapes, all large enough to be shrunk for a crop of 16 px, and none for one of SIDE."""
    shapes = [(90 + 7 * i, 140 - 3 * i) for i in range(12)]
    return put(tmp_path, *(jpeg(picture(*shape, seed), quality=95) for seed, shape in enumerate(shapes)))


def batches(kind, split: Files, size: int, threads: int = 2, **options) -> list:
    n = len(split)
    return list(kind(split, size, CPU, threads, **options).training(ShuffledSampler(n, 0), 5, range(2 * n // 5), 0, 1))


# Pixels

TURNED, UPRIGHT = Image.Exif(), Image.Exif()
TURNED[0x0112], UPRIGHT[0x0112] = 6, 1
PLAIN = {
    "4:2:0": dict(subsampling="4:2:0"),
    "4:2:2": dict(subsampling="4:2:2"),
    "4:4:4": dict(subsampling="4:4:4"),
    "progressive": dict(progressive=True),
    "optimized": dict(optimize=True, quality=30),
    "in RGB": dict(keep_rgb=True),
    "with metadata": dict(exif=UPRIGHT),
}


@pytest.mark.parametrize("shape", [(99, 121), (64, 128), (17, 33), (8, 1)])
@pytest.mark.parametrize("options", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("gray", [False, True])
def test_plain_jpegs_take_a_shorter_way_to_the_same_pixels(options, shape, gray):
    image = picture(*shape).convert("L") if gray else picture(*shape)
    data = jpeg(image, **options)
    open = partial(io.BytesIO, data)
    assert read_fast_path(open) == (data, *shape, None)
    for least in (None, 8, 16, 33):
        room: dict = {}
        made = decode(open, least, lambda h, w, room=room: room.setdefault((h, w), np.empty((h, w, 3), np.uint8)))
        assert list(room) == [made], "one way only was taken"
        np.testing.assert_array_equal(room[made], np.asarray(read_image(open, least)))


def test_a_huge_file_is_left_to_pillow_which_reads_no_more_than_it_needs(tmp_path):
    """A JPEG may have anything behind its end."""
    data, path = jpeg(picture(20, 20)), tmp_path / "sparse.jpg"
    path.write_bytes(data)
    os.truncate(path, 2**33)
    room: dict = {}
    made = decode(partial(open, path, "rb"), None, lambda h, w: room.setdefault((h, w), np.empty((h, w, 3), np.uint8)))
    np.testing.assert_array_equal(room[made], np.asarray(read_image(partial(io.BytesIO, data))))


@pytest.mark.parametrize("least", [None, 20])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_uncompressed_images_take_one_too(mode, least):
    file = io.BytesIO()
    picture(50, 41).convert(mode).save(file, "ppm")
    open, room = partial(io.BytesIO, file.getvalue()), {}
    assert (read_fast_path(open) is None) == (mode == "L")
    made = decode(open, least, lambda h, w: room.setdefault((h, w), np.empty((h, w, 3), np.uint8)))
    np.testing.assert_array_equal(room[made], np.asarray(read_image(open, least)))
    for cut_off in (file.getvalue()[:-1], b"P6\n41 50\n255\n", b"P6\n1 1 255"):
        assert read_fast_path(partial(io.BytesIO, cut_off)) is None


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>'
FAR = jpeg(picture(30, 40), comment=bytes(60_000), exif=TURNED)
FAR = FAR.replace(
    b"\xff\xfe", b"\xff\xfe\xea\x62" + bytes(60_000) + b"\xff\xfe\xea\x62" + bytes(60_000) + b"\xff\xfe", 1
)


@pytest.mark.parametrize(
    "data",
    [
        jpeg(picture(30, 40).convert("CMYK")),
        jpeg(picture(30, 40), xmp=XMP),
        FAR,
        jpeg(picture(30, 40), exif=TURNED),
        jpeg(picture(30, 40), exif=TURNED)[:-2],
        jpeg(picture(30, 40))[:-2],
        b"",
        b"\xff\xd8\xff\xd9",
    ],
    ids=[
        "CMYK",
        "turned by XMP",
        "turned far inside",
        "turned",
        "turned and cut off",
        "without an end",
        "empty",
        "nothing inside",
    ],
)
def test_what_is_not_plain_is_left_to_pillow(data):
    assert read_fast_path(partial(io.BytesIO, data)) is None


def test_of_images_that_need_not_shrink_memory_has_the_same_crops(photos):
    for one, other in zip(batches(CpuLoader, photos, SIDE), batches(ResidentLoader, photos, SIDE), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other))


@pytest.mark.parametrize("size", [16, 40, SIDE])
@each_kind
def test_crops_are_the_same_from_each_loader(photos, kind, size):
    """Up to where a shrunk image has its pixels, and to how DALI rounds."""
    for one, other in zip(batches(CpuLoader, photos, size), batches(kind, photos, size), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one[1:], other[1:]))
        assert (one.images.int() - other.images.int()).abs().float().mean() < 8
        wrong = one.images.roll(1, 0).int() - other.images.int()
        assert wrong.abs().float().mean() > 20


@each_kind
def test_slices_of_several_workers_make_one_batch(photos, kind):
    order, steps = ShuffledSampler(len(photos), 3), range(3, 20)
    whole = list(kind(photos, 16, CPU, 2).training(order, 7, steps, 0, 1))
    parts = zip(*(kind(photos, 16, CPU, 1).training(order, 7, steps, rank, 3) for rank in range(3)))
    for one, slices in zip(whole, parts, strict=True):
        for field, pieces in zip(one, zip(*slices)):
            assert torch.equal(field, torch.cat(pieces))


@each_kind
def test_a_stream_that_is_dropped_can_be_begun_again(photos, kind):
    made = kind(photos, 16, CPU, 2)
    first = [next(made.training(ShuffledSampler(len(photos), 0), 4, range(9), 0, 1)) for _ in range(3)]
    assert all(torch.equal(a.images, b.images) for a, b in pairwise(first))


# Faults that only show when an image is decoded

WHOLE = jpeg(picture(60, 72))
TABLES = WHOLE.index(b"\xff\xdb")
FAULTY = WHOLE[:TABLES] + b"\xff\xfe" + WHOLE[TABLES + 2 :]  # the tables are a comment


@each_kind
def test_a_fault_costs_its_image_and_no_other(tmp_path, kind):
    """DALI fails on the whole batch, names nothing and takes down the batches that it had begun."""
    files, said = [jpeg(picture(60, 72, seed)) for seed in range(20)], []
    files[7] = FAULTY
    assert read_fast_path(partial(io.BytesIO, FAULTY)), "it looks whole"
    split = put(tmp_path, *files)
    met = batches(kind, split, 16, warn=said.append)
    expected = batches(CpuLoader, split, 16, warn=lambda said: None)
    ids = [id for batch in met for id in batch.ids[batch.weights > 0].tolist()]
    assert sorted(ids) == sorted(2 * [id for id in range(20) if id != 7])
    assert len(said) == 1 and "007.jpg" in said[0]
    for one, other in zip(expected, met, strict=True):
        assert torch.equal(one.ids, other.ids) and (one.images.int() - other.images.int()).abs().float().mean() < 8


# The choice


def source(split, size: int = 16) -> Source:
    return Source("some", "x", size, split, split)


def test_auto_keeps_in_memory_what_fits(photos, monkeypatch):
    assert loader.choose_loader("auto", source(photos), CPU, 1)[0] == "memory"
    cores = os.cpu_count()
    assert (
        loader.max_resident_bytes(CPU, 1)
        == loader.max_resident_bytes(CPU, cores)
        == 2 * loader.max_resident_bytes(CPU, 2 * cores)
    )
    monkeypatch.setattr(loader, "max_resident_bytes", lambda device, world: bytes_needed(photos, 16) - 1)
    assert loader.choose_loader("auto", source(photos), CPU, 1)[0] == "cpu"
    for name in ("cpu", "memory"):
        assert loader.choose_loader(name, source(photos), CPU, 1)[0] == name


def test_what_images_will_take_is_judged_well(photos, monkeypatch):
    monkeypatch.setattr(resident, "SAMPLE_IMAGES", 4)
    made = ResidentLoader(photos, 16, CPU, 1)
    next(made.training(ShuffledSampler(len(photos), 0), 2, range(1), 0, 1))
    judged = bytes_needed(photos, 16)
    assert judged != made.images.nbytes and judged == pytest.approx(made.images.nbytes, rel=0.2)
    assert made.regions[:, 1:].min(1).tolist() == [32] * len(photos), "as small as crops allow"


def test_to_judge_what_has_to_be_fetched_one_shard_is_enough():
    places = np.stack([np.arange(400) // 40, *[np.zeros(400, np.int64)] * 3], axis=1)
    near, far = (Packed("train", (), places, np.zeros(400, np.int64), windowed) for windowed in (False, True))
    assert set(places[sample_ids(far), 0]) == {0} and set(places[sample_ids(near), 0]) == set(range(10))


def test_what_cannot_be_had_is_refused(photos, monkeypatch):
    decoded = source(arrays(4, 16))
    assert (
        loader.choose_loader("auto", decoded, CPU, 1)[0]
        == loader.choose_loader("memory", decoded, CPU, 1)[0]
        == "memory"
    )
    with pytest.raises(UserError, match="--loader cpu: some is kept decoded"):
        loader.choose_loader("cpu", decoded, CPU, 1)
    with pytest.raises(UserError, match="there is auto, dali, cpu, memory"):
        loader.choose_loader("ffcv", source(photos), CPU, 1)
    monkeypatch.setattr(loader, "dali_installed", lambda: False)
    with pytest.raises(UserError, match="--loader dali: it is not installed"):
        loader.choose_loader("dali", source(photos), CPU, 1)
    assert "cpu" in loader.choose_decoder(torch.device("cuda"))


@pytest.mark.parametrize("name", [*[kind.__name__ for kind in KINDS]])
def test_the_chosen_loader_reads(shapes, name):
    named = {"CpuLoader": "cpu", "ResidentLoader": "memory", "DaliLoader": "dali"}
    options = dict(batch=8, steps=range(4), seed=0, rank=0, world=1, device=CPU, threads=2, loader=named[name])
    made, met = loader.training_batches(open_source(str(shapes)), **options)
    assert type(made).__name__ == name and sum(len(batch.ids) for batch in met) == 32


@each_kind
def test_a_store_that_fails_ends_training_instead_of_costing_images(photos, kind):
    class Store(Files):
        def open(self, i):
            if i == 5:
                raise StorageError("the store is closed")
            return super().open(i)

    with pytest.raises(StorageError, match="the store is closed"):
        batches(kind, Store(photos.paths, photos.labels), 16)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.resident])
def test_who_interrupts_it_need_not_wait_for_a_store(photos, kind):
    class Store(Files):
        def open(self, i):
            if i == 5:
                waiting.set()
                RetryDeadline().sleep(600)
            return super().open(i)

    waiting = Event()
    seed = next(seed for seed in range(99) if 5 in ShuffledSampler(12, seed).at(np.arange(4, 8))[0])
    made = kind(Store(photos.paths, photos.labels), 16, CPU, 2)
    stream = loader.prefetched(made.training(ShuffledSampler(12, seed), 4, range(9), 0, 1), made, CPU)
    Thread(target=lambda: waiting.wait(60) and pthread_kill(main_thread().ident, SIGINT), daemon=True).start()
    began = perf_counter()
    with pytest.raises(KeyboardInterrupt):
        list(stream)
    assert waiting.is_set() and perf_counter() - began < 60


@pytest.mark.skipif(not dali_installed(), reason="DALI is not installed")
def test_dali_is_given_what_it_failed_on_only_once(tmp_path, monkeypatch):
    from ssl_core.data.loaders import dali

    real, built = dali.build_pipeline, []
    monkeypatch.setattr(dali, "build_pipeline", lambda *arguments: built.append(arguments) or real(*arguments))
    split = put(tmp_path, FAULTY, *(jpeg(picture(60, 72, seed)) for seed in range(9)))
    order, said = ShuffledSampler(10, 0), []
    met = list(dali.DaliLoader(split, 16, CPU, 2, said.append).training(order, 5, range(20), 0, 1))
    assert sum(len(batch.ids) for batch in met) == 90 and len(built) == 2 and len(said) == 1


@pytest.mark.skipif(not dali_installed(), reason="DALI is not installed")
def test_if_dali_fails_for_reasons_of_its_own_nothing_is_lost_and_it_is_said(photos, monkeypatch):
    from ssl_core.data.loaders import dali

    real, calls, said = dali._output, [], []

    def failing(pipeline):
        calls.append(pipeline)
        if len(calls) == 3:
            raise RuntimeError("Critical error in pipeline:\nno memory is left")
        return real(pipeline)

    monkeypatch.setattr(dali, "_output", failing)
    for one, other in zip(batches(CpuLoader, photos, SIDE), batches(dali.DaliLoader, photos, SIDE, warn=said.append)):
        assert torch.equal(one.ids, other.ids) and (one.weights == 1).all() and (other.weights == 1).all()
        assert (one.images.int() - other.images.int()).abs().max() < 8
    assert said == ["DALI failed on a batch, which is decoded without it: no memory is left"]
    assert len(set(map(id, calls))) == 2, "another pipeline goes on"
