"""Several pretext tasks at once on one encoder (Doersch and Zisserman 2017, arXiv:1708.07860)."""

from dataclasses import dataclass

import torch
from torch import nn

from ssl_core.errors import BadInput, choose
from ssl_core.optim import Optim
from ssl_core.task import Task, TaskConfig, tasks


class Multi(Task):
    """Each task makes its own views of every image and has its own head; the loss is the weighted sum of theirs.

    The encoder is judged under the dataset's normalisation: beside Jigsaw, whose tiles are standardised, there is
    always a task that shows it images as the dataset's leaves them.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(TaskConfig):
        """Train on several pretext tasks at once."""

        tasks: tuple[str, ...] = ("rotnet", "jigsaw")
        """which, each with its own defaults"""
        weights: tuple[float, ...] = ()
        """of their losses, in the same order; default: 1 for each"""
        optim: Optim = Optim(optimizer="sgd", lr=0.1, weight_decay=2e-4)

        @property
        def side_by_side(self):
            return max(kind.Config(batch=self.batch).side_by_side for kind in chosen(self).values())

    def __init__(self, config, encoder, data):
        super().__init__(config, encoder, data)
        kinds = chosen(config)
        if len(config.weights) not in (0, len(kinds)) or not all(0 < w < float("inf") for w in config.weights):
            raise BadInput(f"multi: --weights {_said(config.weights)}: expected one above 0 for each of {_said(kinds)}")
        self.weights = config.weights or (1.0,) * len(kinds)
        self.parts = nn.ModuleDict(
            {name: kind(kind.Config(batch=config.batch), encoder, data) for name, kind in kinds.items()}
        )

    def make(self, batch, draw, format):
        made = [part.make(batch, draw, format) for part in self.parts.values()]
        return tuple(inputs for inputs, _ in made), tuple(targets for _, targets in made)

    def forward(self, encoder, inputs):
        return tuple(part(encoder, own) for part, own in zip(self.parts.values(), inputs, strict=True))

    def _each(self, *values):
        return zip(self.parts.items(), *values, strict=True)

    def loss(self, predictions, targets):
        return sum(
            weight * part.loss(said, true)
            for (_, part), weight, said, true in self._each(self.weights, predictions, targets)
        )

    @torch.no_grad()
    def metrics(self, predictions, targets):
        found = {}
        for (name, part), said, true in self._each(predictions, targets):
            own = {"loss": part.loss(said, true), **part.metrics(said, true)}
            found |= {f"{name}/{metric}": value for metric, value in own.items()}
        return found

    def after_step(self, predictions, targets):
        for (_, part), said, true in self._each(predictions, targets):
            part.after_step(said, true)

    def picture(self, inputs, predictions, targets):
        shown = [
            [(image, f"{name}: {caption}") for image, caption in part.picture(own, said, true)]
            for (name, part), own, said, true in self._each(inputs, predictions, targets)
        ]
        return [picture for together in zip(*shown) for picture in together]


def chosen(config) -> dict[str, type[Task]]:
    """The kinds of tasks that `config` names. Raises BadInput for fewer than two, or for one twice or unknown."""
    known = {name: kind for name, kind in tasks().items() if kind is not Multi}
    for name in config.tasks:
        if name not in known:
            raise BadInput(f"multi: no task {name!r} to train with others: {choose(name, known)}")
    if len(set(config.tasks)) < len(config.tasks) or len(config.tasks) < 2:
        raise BadInput(f"multi: --tasks {_said(config.tasks)}: expected two or more, each once")
    return {name: known[name] for name in config.tasks}


def _said(values) -> str:
    return " ".join(map(str, values)) or "(none)"
