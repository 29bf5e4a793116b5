"""Disks and networks that fail while a run reads: two more attempts, then the image is left out; training goes on."""

import errno
import io

import pytest
import torch
from PIL import Image
from support.loaders import each_kind
from support.synthetic_images import FORMAT, gradients, pretext

import ssl_core.data.decoding.decode as decode
from ssl_core.data.dataset import Files, open_source
from ssl_core.data.loaders.base import EncodedLoader
from ssl_core.data.loaders.cpu import CpuLoader
from ssl_core.data.sampler import ShuffledSampler
from ssl_core.errors import UserError
from ssl_core.optim import Optim
from ssl_core.task import tasks
from ssl_core.train import TrainConfig, train

CPU = torch.device("cpu")
COUNT = 12


class Disk:
    """Stands in front of Files.open: `failing` maps a file's name to how many more attempts fail."""

    def __init__(self, error: OSError):
        self.error, self.failing, self.open = error, {}, Files.open

    def __call__(self, files, i):
        name = files.paths[i].name
        left = self.failing.get(name, 0)
        if left:
            self.failing[name] = left - 1
            raise self.error
        return self.open(files, i)


@pytest.fixture
def folder(tmp_path):
    for number, image in enumerate(gradients(COUNT, 32).numpy()):
        Image.fromarray(image).save(tmp_path / f"{number:02d}.png")
    return tmp_path


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """What would have been waited."""
    waited: list[float] = []
    monkeypatch.setattr(decode.time, "sleep", waited.append)
    return waited


def disk(monkeypatch, number: int = errno.EIO) -> Disk:
    made = Disk(OSError(number, "it failed"))
    monkeypatch.setattr(Files, "open", lambda files, i: made(files, i))
    return made


def epoch(folder, said: list[str], kind: type[EncodedLoader] = CpuLoader):
    """The loader, and the ids of an epoch's images that were trained on."""
    source = open_source(str(folder), 16)
    loader = kind(source.train, 16, CPU, 1, said.append)
    batches = list(loader.training(ShuffledSampler(COUNT, 0), 4, range(COUNT // 4), 0, 1))
    assert len(batches) == COUNT // 4
    trained = [id for batch in batches for id in batch.ids[batch.weights > 0].tolist()]
    assert len(set(trained)) == len(trained) and len(trained) + len(loader.skipped) == COUNT
    return loader, trained


@each_kind
def test_an_error_that_passes_costs_nothing(folder, monkeypatch, waits, kind):
    said = []
    whole = epoch(folder, said, kind)[1]
    disk(monkeypatch).failing = {"03.png": 1, "07.png": 2}
    assert epoch(folder, said, kind)[1] == whole
    assert not said and sorted(waits) == sorted([*decode.WAITS_S[:1], *decode.WAITS_S])


@each_kind
def test_an_error_that_stays_skips_the_file(folder, monkeypatch, waits, kind):
    said = []
    disk(monkeypatch).failing = {"03.png": 10**9}
    loader, trained = epoch(folder, said, kind)
    assert 3 not in trained and loader.skipped == {str(folder / "03.png")}
    assert len(said) == 1 and "03.png" in said[0] and "it failed" in said[0]
    assert waits == 2 * list(decode.WAITS_S), "in the sample of the files, and in the epoch"


def test_an_error_in_the_middle_of_a_file_counts_as_well(folder, monkeypatch, waits):
    """The header is read; the pixels only at the second attempt."""
    data, failed = (folder / "03.png").read_bytes(), []

    class Torn(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 40 and not failed:
                failed.append(self.tell())
                raise OSError(errno.EIO, "it failed")
            return super().read(size)

    real = Files.open

    def torn(files, i):
        if files.paths[i].name != "03.png":
            return real(files, i)
        return Torn(data)

    monkeypatch.setattr(Files, "open", torn)
    assert len(epoch(folder, [])[1]) == COUNT and failed and len(waits) == 1


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOENT])
def test_what_would_come_again_is_not_waited_for(folder, monkeypatch, waits, number):
    said = []
    disk(monkeypatch, number).failing = {"03.png": 10**9}
    loader, _ = epoch(folder, said)
    assert loader.skipped == {str(folder / "03.png")} and len(said) == 1 and not waits


@each_kind
def test_a_file_that_is_gone_is_skipped(folder, kind):
    source, said = open_source(str(folder), 16), []
    (folder / "03.png").unlink()
    loader = kind(source.train, 16, CPU, 2, said.append)
    trained = [int(batch.weights.sum()) for batch in loader.training(ShuffledSampler(COUNT, 0), 4, range(6), 0, 1)]
    assert sum(trained) == 2 * (COUNT - 1) and len(trained) == 6
    assert loader.skipped == {str(folder / "03.png")} and len(said) == 1


def test_a_dead_disk_is_refused_without_waiting(folder, monkeypatch, waits):
    disk(monkeypatch).failing = {path.name: 10**9 for path in folder.iterdir()}
    with pytest.raises(UserError, match=f"none of its {COUNT} images"):
        open_source(str(folder))
    assert not waits


@pytest.mark.parametrize("task", tasks())
def test_training_goes_on_past_a_batch_of_which_nothing_is_left(folder, monkeypatch, waits, task):
    """The weights stay finite, and the step counts for no image."""
    source, order = open_source(str(folder), 32), ShuffledSampler(COUNT, 0)
    names = {source.train.paths[id].name for id in order.at(torch.arange(4, 8).numpy())[0]}
    disk(monkeypatch).failing = dict.fromkeys(names, 10**9)
    loader = CpuLoader(source.train, 32, CPU, 0, lambda said: None)
    model = pretext(task)
    batches = (b._replace(labels=b.ids % 10) for b in loader.training(order, 4, range(3), 0, 1))
    plan = TrainConfig(steps=3, seed=0, optim=Optim(lr=0.01))
    steps = [step for step in train(model, batches, FORMAT, plan) if step.state()]
    assert [round(float(step.metrics["weight"])) for step in steps] == [4, 0, 4]
    assert all(torch.isfinite(value) for step in steps for value in step.metrics.values())
    assert loader.skipped == {str(folder / name) for name in names}
