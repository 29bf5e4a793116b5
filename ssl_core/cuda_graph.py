"""Replays a whole training step as a CUDA graph: one launch instead of a thousand.

Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture. Without a GPU the same function runs
through the same buffers, one kernel at a time.
"""

import random
import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import Literal

import torch
from torch import Tensor

from ssl_core.data.batch import Batch
from ssl_core.errors import UserError
from ssl_core.step_parts import part

Mode = Literal["off", "auto", "on"]
WARM_UP = 3  # steps before a capture, in which libraries compile kernels and allocate what they keep
MEASURED = 5  # more such steps, of which "auto" measures whether a graph would be faster
# Share of a step's time after which the CPU has launched all of it. Where the GPU is what takes time, the CPU is done
# long before, but for the thousand launches that CUDA lets it be ahead.
LAUNCH_BOUND = 0.75


class CudaStream:
    """Runs, measures and captures functions on a stream of its own, which a capture needs.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device):
        self.device, self.stream = device, torch.cuda.Stream(device)

    def run(self, function: Callable[[], Tensor]) -> Tensor:
        """Returns what a function returns, which is computed between what was launched before and what follows."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            values = function()
        current.wait_stream(self.stream)
        return values

    def measure(self, function: Callable[[], Tensor]) -> tuple[Tensor, float]:
        """Runs a function, and also returns the share of its time after which the CPU has launched all of it."""
        torch.cuda.synchronize(self.device)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        started = time.perf_counter()
        begin.record(self.stream)
        values = self.run(function)
        end.record(self.stream)
        launched = time.perf_counter() - started
        end.synchronize()
        return values, 1e3 * launched / begin.elapsed_time(end)

    def capture(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Captures what a function launches, which computes nothing yet.

        Args:
            function: Returns a tensor.

        Returns:
            Replays it, and returns that tensor, always the same one, with new values.

        Raises:
            RuntimeError: If the function waits for the device, or does something else that cannot be captured.
        """
        graph = torch.cuda.CUDAGraph()
        # other threads may go on loading images meanwhile
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            values = function()

        def replay() -> Tensor:
            with torch.cuda.device(self.device):
                graph.replay()
            return values

        return replay


class GraphedStep:
    """Runs a training step through static buffers, and replays it as a CUDA graph once it was captured.

    The first steps run one kernel at a time; those that follow are replays of the same kernels on the same memory. So
    the step has to change weights and buffers in place, and to read what differs from step to step from tensors: the
    batch and the progress, which are copied into buffers here, and the learning rate, which the optimizer has in one.
    Random numbers of torch's generator on the GPU are those that its seed before each step gives, replayed or not.

    A batch of another shape than the first is computed without the graph.

    Args:
        compute: (batch, progress) -> 0-d tensors by name; it trains in place, see `TrainingStep`.
        state: Returns all tensors that a step leaves for the next one.
        cuda: Captures the step; None where nothing can.
        mode: "on" captures; "auto" captures if launching kernels takes most of a step's time, and goes on without a
            graph if the step cannot be captured.
        warn: Is called with one line if no graph is used.
    """

    def __init__(
        self,
        compute: Callable[[Batch, Tensor], dict[str, Tensor]],
        state: Callable[[], Iterable[Tensor]],
        cuda: CudaStream | None,
        mode: Literal["auto", "on"],
        warn: Callable[[str], None],
    ):
        self.compute, self.state, self.cuda, self.mode, self.warn = compute, state, cuda, mode, warn
        self.buffers: tuple[Batch, Tensor] | None = None  # the batch and the progress
        self.names: list[str] = []
        self.replay: Callable[[], Tensor] | None = None
        self.steps, self.shares = 0, []
        self.moved, self.drew, self.other_shape = False, True, False

    def __call__(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Trains on a batch.

        Args:
            batch: On the device.
            progress: The share of the training's steps that are completed after this one.

        Returns:
            What `compute` returns, in memory of its own, float32.

        Raises:
            UserError: With mode "on", if the step cannot be captured.
        """
        if self.buffers is None:
            buffer = torch.zeros((), dtype=torch.float64, device=batch.ids.device)
            self.buffers = Batch(*(field.clone() for field in batch)), buffer
        own, own_progress = self.buffers
        own_progress.fill_(progress)
        if any(one.shape != given.shape for one, given in zip(own, batch)):
            if not self.other_shape:
                self.warn(f"a batch of {len(batch.ids)} images is trained on without the CUDA graph of {len(own.ids)}")
            self.other_shape = True
            return self._named(self._values(batch))
        for one, given in zip(own, batch):
            one.copy_(given, non_blocking=True)
        if self.cuda is not None:
            self.steps += 1
            if self.steps <= WARM_UP + (MEASURED if self.mode == "auto" else 0):
                return self._named(self._warm_up(self.cuda))
            self._decide(self.cuda)
        if self.replay is None:
            return self._named(self._values(own))
        with part("replay"):
            return self._named(self.replay().clone())  # the next replay writes there again

    def _values(self, batch: Batch) -> Tensor:
        assert self.buffers is not None
        found = self.compute(batch, self.buffers[1])
        self.names = list(found)
        return torch.stack([value.float() for value in found.values()])

    def _buffered(self) -> Tensor:
        assert self.buffers is not None
        return self._values(self.buffers[0])

    def _named(self, values: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.names, values.unbind()))

    def _warm_up(self, cuda: CudaStream) -> Tensor:
        """Runs a step on the stream that is captured later, and looks at what it leaves."""
        memory, drawn = addresses(self.state()), host_random_state()
        if self.steps > WARM_UP:
            values, share = cuda.measure(self._buffered)
            self.shares.append(share)
        else:
            values = cuda.run(self._buffered)
        self.moved = memory != addresses(self.state())  # the first step allocates, the last one counts
        self.drew &= drawn != host_random_state()  # at each step, or it is another thread that draws
        return values

    def _decide(self, cuda: CudaStream) -> None:
        """Captures a step or says why not, once."""
        self.cuda = None
        if why_not := self._why_not(cuda):
            if self.mode == "on":
                raise UserError(f"--cuda-graphs on: {why_not}")
            self.warn(f"no CUDA graph: {why_not}")

    def _why_not(self, cuda: CudaStream) -> str | None:
        if self.moved:
            return "a step moves weights, or what the task remembers, instead of writing in place"
        if self.drew:
            return "a step draws random numbers on the CPU"
        if self.shares and (share := median(self.shares)) < LAUNCH_BOUND:
            return f"the CPU has launched a step after {share:.0%} of its time, so that the GPU does not wait for it"
        try:
            self.replay = cuda.capture(self._buffered)
        except torch.OutOfMemoryError:
            if self.mode == "on":
                raise
            return "the GPU's memory is too small for one"
        except RuntimeError as error:
            return f"a step cannot be captured: {str(error).splitlines()[0]}"
        return None


def addresses(tensors: Iterable[Tensor]) -> list[int]:
    """Returns where tensors lie in memory."""
    return [one.data_ptr() for one in tensors]


def host_random_state() -> tuple[bytes, object]:
    """Returns the state of the generators of random numbers on the CPU: torch's and Python's."""
    return torch.get_rng_state().numpy().tobytes(), random.getstate()
