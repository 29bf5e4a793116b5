"""What only a GPU can show: graphs, streams, launches, no waiting for the device, and more than 2^31 elements."""

from functools import partial
from itertools import islice
from random import Random

import pytest
import torch
from support.example_variants import names, public, rows, several, vary

from kernels import registry

pytestmark = pytest.mark.gpu
each_kernel = pytest.mark.parametrize("kernel", registry.kernels(), ids=lambda kernel: kernel.name)
VARIATIONS = 4  # each compiles
FEW = 4  # examples, where more would show no more
DEVICE = "cuda"
LARGE, ROOM = 2**31, 40 * 2**30  # elements of the largest output, bytes that it may take with its inputs
AHEAD = 100_000_000  # clock cycles, so some 50 ms, that a stream is kept busy for


def there(value):
    """An argument on the device, with the strides and the storage offset that it has here."""
    if not isinstance(value, torch.Tensor):
        return value
    memory = torch.empty(0, dtype=value.dtype).set_(value.untyped_storage()).to(DEVICE)
    return memory.as_strided(value.shape, value.stride(), value.storage_offset())


def calls(kernel):
    """The examples of several images, contiguous and on the device."""
    for example in kernel.examples(torch.Generator().manual_seed(0)):
        if rows(kernel, dict(zip(names(kernel), example))) > 1:
            yield [value.to(DEVICE).contiguous() if isinstance(value, torch.Tensor) else value for value in example]


def assert_equal(results, expected):
    for result, wanted in zip(several(results), several(expected), strict=True):
        assert (result.dtype, result.stride()) == (wanted.dtype, wanted.stride())
        assert torch.equal(result.cpu(), wanted.cpu())


@each_kernel
def test_any_shape_stride_and_type_equals_reference(kernel):
    for seed in range(VARIATIONS):
        arguments = vary(kernel, Random(seed)).values()
        assert_equal(kernel.op(*map(there, arguments)), kernel.reference(*arguments))


@each_kernel
def test_replays_from_a_graph(kernel):
    for arguments in islice(calls(kernel), FEW):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            kernel.op(*arguments)  # compiles, which a capture cannot
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = kernel.op(*arguments)
        for value in arguments:
            if isinstance(value, torch.Tensor):
                value.copy_(value.flip(0))
        graph.replay()
        assert_equal(results, kernel.op(*arguments))


@each_kernel
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_does_not_wait_for_the_device(kernel):
    for arguments in islice(calls(kernel), FEW):
        named = dict(zip(names(kernel), arguments, strict=True))
        public(kernel)(**named)  # compiles
        torch.cuda.set_sync_debug_mode("error")
        try:
            public(kernel)(**named)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def on_the_device(call):
    """The names of what `call` runs on the device: kernels, copies and fills."""
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    return [event.name for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]


@each_kernel
def test_launches_no_more_than_its_own_kernels(kernel):
    ones = torch.ones(8, device=DEVICE)
    if len(on_the_device(lambda: ones.add_(1))) != 1:
        pytest.skip("the profiler does not see one kernel as one here")
    own = {build.function.fn.__name__ for build in kernel.builds()}
    for arguments in islice(calls(kernel), FEW):
        kernel.op(*arguments)  # compiles
        ran = on_the_device(partial(kernel.op, *arguments))
        assert sorted(next(filter(name.startswith, own), name) for name in ran) == sorted(own)


@each_kernel
def test_runs_on_the_current_stream(kernel):
    arguments = next(calls(kernel))
    blank = [torch.zeros_like(value) if isinstance(value, torch.Tensor) else value for value in arguments]
    kernel.op(*blank)  # compiles
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(AHEAD)
        for empty, value in zip(blank, arguments, strict=True):
            if isinstance(value, torch.Tensor):
                empty.copy_(value)
        results = kernel.op(*blank)  # on another stream, this would read zeros
    torch.cuda.synchronize()
    assert_equal(results, kernel.op(*arguments))


@each_kernel
def test_more_elements_than_int32_counts(kernel):
    """The rows of one example again and again: every repetition of the result is the same."""
    torch.cuda.empty_cache()
    if torch.cuda.mem_get_info()[0] < ROOM:
        pytest.skip(f"needs {ROOM >> 30} GB of GPU memory")
    # the example with the largest rows, which needs the fewest of them
    few, arguments = max(
        ((several(kernel.op(*call)), call) for call in calls(kernel)),
        key=lambda pair: pair[0][0].numel() / rows(kernel, dict(zip(names(kernel), pair[1]))),
    )
    times = LARGE // few[0].numel() + 1
    many = [v.repeat(times, *[1] * (v.dim() - 1)) if isinstance(v, torch.Tensor) else v for v in arguments]
    for result, wanted in zip(several(kernel.op(*many)), few, strict=True):
        assert len(result) == times * len(wanted)
        assert all(bool((part == wanted).all()) for part in result.unflatten(0, (times, -1)).chunk(64))
