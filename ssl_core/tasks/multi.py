"""Several pretext tasks at once on one encoder (Doersch and Zisserman 2017, arXiv:1708.07860)."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from ssl_core.errors import UserError, choose
from ssl_core.optim import Optim
from ssl_core.task import Task, TaskConfig, tasks


class Multi(Task):
    """Trains one encoder on several tasks at once.

    Each task makes its own views of every image and has its own head; the loss is the weighted sum of theirs. The
    encoder is evaluated under the dataset's normalization, since at least one of the tasks shows it such images, also
    beside Jigsaw, which standardizes its tiles.
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

        @property
        def parts(self):
            return self.tasks

    config: Config

    @property
    def capturable(self):
        return all(part.capturable for part in self._tasks().values())

    def __init__(self, config: Config, encoder, data):
        super().__init__(config, encoder, data)
        kinds = chosen(config)
        if len(config.weights) not in (0, len(kinds)) or not all(0 < w < float("inf") for w in config.weights):
            raise UserError(
                f"multi: --weights {_join(config.weights)}: expected one above 0 for each of {_join(kinds)}"
            )
        self.weights = config.weights or (1.0,) * len(kinds)
        self.parts = nn.ModuleDict(
            {name: kind(kind.Config(batch=config.batch), encoder, data) for name, kind in kinds.items()}
        )

    def make_batch(self, batch, bits, format):
        made = [part.make_batch(batch, bits, format) for part in self._tasks().values()]
        return tuple(inputs for inputs, _ in made), tuple(targets for _, targets in made)

    def forward(self, encoder, inputs):
        return tuple(part(encoder, own) for part, own in zip(self.parts.values(), inputs, strict=True))

    def _tasks(self) -> dict[str, Task]:
        return cast(dict[str, Task], self.parts)  # a ModuleDict does not say what it holds

    def _each(self, *values):
        return zip(self._tasks().items(), *values, strict=True)

    def loss(self, predictions, targets):
        return sum(
            weight * part.loss(outputs, true)
            for (_, part), weight, outputs, true in self._each(self.weights, predictions, targets)
        )

    @torch.no_grad()
    def metrics(self, predictions, targets):
        found = {}
        for (name, part), outputs, true in self._each(predictions, targets):
            own = {"loss": part.loss(outputs, true), **part.metrics(outputs, true)}
            found |= {f"{name}/{metric}": value for metric, value in own.items()}
        return found

    def copy_encoder(self, encoder):
        for part in self._tasks().values():
            part.copy_encoder(encoder)

    def after_step(self, encoder, outcomes, progress):
        for i, part in enumerate(self._tasks().values()):
            part.after_step(encoder, [(outputs[i], true[i]) for outputs, true in outcomes], progress)

    def visualize(self, inputs, predictions, targets):
        shown = [
            [(image, f"{name}: {caption}") for image, caption in part.visualize(own, outputs, true)]
            for (name, part), own, outputs, true in self._each(inputs, predictions, targets)
        ]
        return [picture for together in zip(*shown) for picture in together]


def chosen(config) -> dict[str, type[Task]]:
    """Returns the classes of the tasks that `config` names, by name.

    Raises:
        UserError: For fewer than two tasks, or one that is named twice or unknown.
    """
    known = {name: kind for name, kind in tasks().items() if kind is not Multi}
    for name in config.tasks:
        if name not in known:
            raise UserError(f"multi: no task {name!r} to train with others: {choose(name, known)}")
    if len(set(config.tasks)) < len(config.tasks) or len(config.tasks) < 2:
        raise UserError(f"multi: --tasks {_join(config.tasks)}: expected two or more, each once")
    return {name: known[name] for name in config.tasks}


def _join(values) -> str:
    return " ".join(map(str, values)) or "(none)"
