"""Large CPU outputs: their memory is used again, and never while anything still looks at it."""

import threading

import pytest
import torch

from kernels import buffer_pool

SHAPE = (3, 3, 400, 400)  # 5.8 MB as float32


@pytest.fixture(autouse=True)
def nothing_kept():
    buffer_pool._unused.clear()
    yield
    buffer_pool._unused.clear()


def tensor(layout=torch.contiguous_format, dtype=torch.float32):
    return buffer_pool.empty(SHAPE, dtype, layout)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_it_is_an_ordinary_tensor(layout, dtype):
    large, plain = tensor(layout, dtype), torch.empty(SHAPE, dtype=dtype, memory_format=layout)
    assert (large.shape, large.stride(), large.dtype) == (plain.shape, plain.stride(), plain.dtype)
    assert large.data_ptr() % buffer_pool.ALIGNMENT == 0 and not large._is_view()
    large.fill_(7)
    assert (large.clone().mul_(2) == 14).all()


def test_memory_is_used_again():
    first = tensor()
    place = first.data_ptr()
    del first
    assert tensor(torch.channels_last).data_ptr() == place


@pytest.mark.parametrize("keep", [lambda t: t[1], lambda t: t.numpy(), lambda t: t.view(-1), lambda t: t.detach()])
def test_what_still_looks_at_it_keeps_it(keep):
    first = tensor().fill_(1)
    place, kept = first.data_ptr(), keep(first)
    del first
    second = tensor().fill_(2)
    assert second.data_ptr() != place and (kept == 1).all()
    del kept
    assert tensor().data_ptr() == place


def test_little_is_kept(monkeypatch):
    monkeypatch.setattr(buffer_pool, "KEPT", 12_000_000)
    tensors = [tensor() for _ in range(4)]
    del tensors
    assert sum(block.size for block in buffer_pool._unused) <= 12_000_000
    assert len(buffer_pool._unused) == 2


def test_small_outputs_are_left_to_torch():
    small = buffer_pool.empty((1, 3, 8, 8), torch.float32, torch.contiguous_format)
    del small
    assert not buffer_pool._unused


def test_threads_never_share_memory():
    wrong = []

    def work(value):
        for _ in range(30):
            mine = tensor().fill_(value)
            if not (mine == value).all():
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
