"""Keeps means of a training's metrics between two rows of metrics.jsonl."""

import torch


class MetricsWindow:
    """Keeps means over the images since the last row of metrics.jsonl, also across a restart. The device keeps the
    sums."""

    def __init__(self, state: dict | None):
        self.sums: dict = dict(state["window"]) if state else {}

    def add(self, metrics: dict[str, torch.Tensor]) -> None:
        """Adds the metrics of one step, weighted by their "weight"."""
        weight = metrics["weight"]
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0) + (weight if name == "weight" else value * weight)

    def means(self) -> dict[str, float]:
        """Returns the means so far, `lr` among them."""
        weight = float(self.sums["weight"])
        return {name: float(value) / weight for name, value in self.sums.items() if name != "weight"}

    def end(self) -> dict[str, float]:
        """Returns the means, and begins the next window."""
        means, self.sums = self.means(), {}
        return means

    def state(self) -> dict[str, float]:
        """Returns what a checkpoint keeps of this window."""
        return {name: float(value) for name, value in self.sums.items()}
