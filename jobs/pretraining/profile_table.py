"""Says where the time of profiled steps went."""

from collections.abc import Iterable

from torch.autograd import DeviceType  # pyright: ignore[reportPrivateImportUsage]
from torch.autograd.profiler_util import FunctionEvent

from ssl_core.step_parts import PARTS, PREFIX

# calls in which the CPU waits until a GPU has done what it was given
WAITS = {"cudaDeviceSynchronize", "cudaStreamSynchronize", "cudaEventSynchronize", "cudaMemcpy"}


def part_seconds(events: Iterable[FunctionEvent]) -> dict[str, float]:
    """Returns how long the CPU that runs the steps spent in each of their parts, in seconds, by the names of PARTS.

    Args:
        events: What torch.profiler saw.
    """
    took = dict.fromkeys(PARTS, 0.0)
    for event in events:
        if event.device_type == DeviceType.CPU and event.name.startswith(PREFIX):
            took[event.name.removeprefix(PREFIX)] += event.time_range.elapsed_us() / 1e6
    return took


def profile_table(events: Iterable[FunctionEvent], steps: int, seconds: float) -> str:
    """Returns a table of the parts of a step, for people.

    Args:
        events: What torch.profiler saw of these steps.
        steps: How many they are.
        seconds: How long they took together.
    """
    events = list(events)
    took = part_seconds(events)
    waited, busy = 0.0, []
    for event in events:
        span = event.time_range
        if event.device_type == DeviceType.CUDA:
            if not event.is_user_annotation:
                busy.append((span.start, span.end))
        elif event.name in WAITS:
            waited += span.elapsed_us() / 1e6
    rows = [(name, took[name], means) for name, means in PARTS.items() if took[name] or name != "replay"]
    rows.append(("other", max(0.0, seconds - sum(took.values())), "metrics, rows and checkpoints"))
    each = f"{steps} step{'s' * (steps > 1)}, {1e3 * seconds / steps:,.1f} ms each"
    lines = [f"{each}; of the time of the CPU that runs them:"]
    lines += [_line(name, part, steps, seconds, means) for name, part, means in rows]
    if busy:
        lines.append("in these, and of the GPU's time:")
        lines.append(_line("waiting", waited, steps, seconds, "the CPU, for the GPU"))
        lines.append(_line("GPU busy", _covered(busy) / 1e6, steps, seconds, "kernels and copies"))
    return "\n".join(lines) + "\n"


def _line(name: str, part: float, steps: int, seconds: float, means: str) -> str:
    return f"  {name:<10}{1e3 * part / steps:>10,.2f} ms{part / seconds:>7.1%}  {means}"


def _covered(spans: list[tuple[float, float]]) -> float:
    """Returns how much time at least one of the spans covers: streams overlap."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
