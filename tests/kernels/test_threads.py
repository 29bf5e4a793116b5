"""The CPU loops give the same on any number of threads, also where work is shared out unevenly."""

import pytest
import torch

from kernels import dispatch


@pytest.fixture(params=[2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kernel", dispatch.kernels(), ids=lambda kernel: kernel.name)
def test_threads_do_not_change_a_result(kernel, threads, monkeypatch):
    monkeypatch.setattr(dispatch, "WORTH_THREADS", 1)
    for arguments in kernel.examples(torch.Generator().manual_seed(2)):
        results, expected = kernel.cpu(*arguments), kernel.reference(*arguments)
        for result, wanted in zip(*(x if isinstance(x, tuple) else (x,) for x in (results, expected)), strict=True):
            assert torch.equal(result, wanted)


def test_a_fault_in_a_thread_is_not_swallowed(threads, monkeypatch):
    monkeypatch.setattr(dispatch, "WORTH_THREADS", 1)

    def loop(first, last):
        if last == 10:
            raise ValueError("in the last part")

    with pytest.raises(ValueError, match="in the last part"):
        dispatch.over_rows(loop, 10, 10)
