"""The CPU loops give the same on any number of threads, also where work is shared out unevenly."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from kernels import cpu_threads, registry


@pytest.fixture(params=[2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kernel", registry.kernels(), ids=lambda kernel: kernel.name)
def test_threads_do_not_change_a_result(kernel, threads, monkeypatch):
    monkeypatch.setattr(cpu_threads, "WORTH_THREADS", 1)
    for arguments in kernel.examples(torch.Generator().manual_seed(2)):
        results, expected = kernel.cpu(*arguments), kernel.reference(*arguments)
        both = ((x,) if isinstance(x, torch.Tensor) else x for x in (results, expected))
        for result, wanted in zip(*both, strict=True):
            assert torch.equal(result, wanted)


def test_a_fault_in_a_thread_is_not_swallowed(threads, monkeypatch):
    monkeypatch.setattr(cpu_threads, "WORTH_THREADS", 1)

    def loop(first, last):
        if last == 10:
            raise ValueError("in the last part")

    with pytest.raises(ValueError, match="in the last part"):
        cpu_threads.parallel_rows(loop, 10, 10)


def test_a_thread_alone_does_all_work_itself(threads, monkeypatch):
    """And only that one: the others go on sharing theirs."""
    monkeypatch.setattr(cpu_threads, "WORTH_THREADS", 1)

    def parts():
        ran = []
        cpu_threads.parallel_rows(lambda *part: ran.append((*part, threading.get_ident())), 10, 10)
        return ran

    with ThreadPoolExecutor(1, initializer=cpu_threads.single_threaded) as pool:
        assert pool.submit(parts).result() == [(0, 10, pool.submit(threading.get_ident).result())]
    assert len(parts()) > 1
