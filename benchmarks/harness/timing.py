"""How long calls take, side by side: rounds alternate between them, so that a noisy neighbor hurts all alike."""

import time
from collections.abc import Callable

import torch

FLUSHED = 2**28  # bytes written between two timed calls on a GPU, more than any L2 cache holds
PAUSE = 0.01  # seconds: idle threads of OpenMP spin for some milliseconds
BURST = 0.005  # seconds of calls back to back on a CPU, where the first of them finds cold caches
QUANTILES = (0.2, 0.5, 0.8)


def quantiles(seconds: list[float]) -> dict[str, float]:
    """p20, p50 and p80 in milliseconds."""
    values = torch.tensor(seconds, dtype=torch.float64).quantile(torch.tensor(QUANTILES, dtype=torch.float64))
    return {f"p{q * 100:.0f}": 1e3 * v for q, v in zip(QUANTILES, values.tolist())}


def each(call: Callable, device: str, times: int = 1) -> float:
    """Seconds of a call by the wall clock, the device's work included: the mean of some calls back to back."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        call()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / times


def side_by_side(calls: dict[str, Callable], device: str, seconds: float, most: int = 50) -> dict[str, dict]:
    """Quantiles for each call by the wall clock, of as many rounds as `seconds` allow, at least 3. Every call finds
    the device idle: on a CPU the last call's threads have stopped spinning, on a GPU the L2 cache is flushed. On a CPU
    short calls are timed in bursts."""
    flush = torch.empty(FLUSHED if device == "cuda" else 0, dtype=torch.uint8, device=device)
    bursts = dict.fromkeys(calls, 1)
    if device == "cpu":
        bursts = {name: max(1, round(BURST / each(call, device))) for name, call in calls.items()}
    taken = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    for done in range(most):
        if done >= 3 and time.perf_counter() > end:
            break
        for name, call in calls.items():
            flush.zero_()
            until = time.perf_counter() + (PAUSE if device == "cpu" else 0)
            while time.perf_counter() < until:  # awake, since a processor that slept starts slowly
                pass
            taken[name].append(each(call, device, bursts[name]))
    return {name: quantiles(values) for name, values in taken.items()}


def capture(call: Callable) -> torch.cuda.CUDAGraph:
    """The call in a CUDA graph. Raises RuntimeError if it cannot be captured."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.stream(stream):
        call()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=stream):
        call()
    return graph


def alternating(calls: dict[str, Callable], rounds: int = 50) -> dict[str, float]:
    """Median milliseconds of a GPU's own time for calls that can be captured in CUDA graphs. In each round every graph
    is replayed once, the L2 cache flushed before."""
    graphs = {name: capture(call) for name, call in calls.items()}
    flush = torch.empty(FLUSHED, dtype=torch.uint8, device="cuda")
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        pairs = {name: [torch.cuda.Event(enable_timing=True) for _ in range(2)] for name in graphs}
        for name, graph in graphs.items():
            flush.zero_()
            pairs[name][0].record()
            graph.replay()
            pairs[name][1].record()
        torch.cuda.synchronize()
        for name, (start, stop) in pairs.items():
            taken[name].append(start.elapsed_time(stop) / 1e3)
    return {name: quantiles(values)["p50"] for name, values in taken.items()}


def on_device(call: Callable, seconds: float) -> dict[str, dict]:
    """A GPU's own time for a call that can be captured in a CUDA graph: cold with the L2 cache flushed before each
    replay, warm with replays back to back. An empty dict for a call that cannot be captured."""
    try:
        graph = capture(call)
    except RuntimeError:
        torch.cuda.synchronize()
        return {}
    flush = torch.empty(FLUSHED, dtype=torch.uint8, device="cuda")
    return {"cold": _events(graph, seconds / 2, flush.zero_), "warm": _events(graph, seconds / 2, None)}


def _events(graph, seconds: float, before: Callable | None, repeats: int = 10) -> dict[str, float]:
    """Without `before`, several replays are timed together: one alone is shorter than the events' resolution."""
    pairs, times = [], 1 if before else repeats
    graph.replay()
    end = time.perf_counter() + seconds
    while len(pairs) < 10 or (time.perf_counter() < end and len(pairs) < 200):
        pair = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        if before:
            before()
        pair[0].record()
        for _ in range(times):
            graph.replay()
        pair[1].record()
        pairs.append(pair)
        if len(pairs) % 20 == 0:
            torch.cuda.synchronize()
    torch.cuda.synchronize()
    return quantiles([start.elapsed_time(stop) / 1e3 / times for start, stop in pairs])


def host(call: Callable, device: str, repeats: int = 100) -> float:
    """Median microseconds until a call returns, its device's work not awaited."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
        if device == "cuda" and len(taken) % 10 == 0:
            torch.cuda.synchronize()
    return 1e3 * quantiles(taken)["p50"]
