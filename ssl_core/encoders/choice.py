"""Chooses one of several networks in a file: the one asked for, or the one that its authors evaluate."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ssl_core.encoders.networks import TOP, Network, and_has, find_networks
from ssl_core.encoders.state_dicts import Tables
from ssl_core.errors import UserError, some

# Of two networks that differ in such a word, what their authors evaluate: (taken before the others, after them). The
# first line that tells two apart decides.
CONVENTIONS = (
    ("encoder_q", "encoder_k"),  # MoCo v1 and v2, DenseCL: main_lincls.py keeps the query encoder alone
    ("base_encoder", "momentum_encoder"),  # MoCo v3: main_lincls.py
    ("online", None),  # BYOL evaluates its online network
    ("target_encoder", None),  # MSN and I-JEPA evaluate theirs
    ("teacher", "student"),  # DINO, iBOT, EsViT and DINOv2: checkpoint_key is teacher unless it is given
    ("ema|averaged|swa", None),  # timm.models.load_checkpoint prefers state_dict_ema and model_ema
    (None, "momentum|target|key"),  # lightly and solo-learn: the backbone that was trained
)


@dataclass(frozen=True)
class Choice:
    """Holds the network that was taken from a file, and what else there was.

    Attributes:
        network: The network.
        label: Its name, as short as distinguishes it from the others; "" if there is no other.
        others: Labels of networks that fit as well and hold other numbers.
        unused: Tensors of the same dict that are in no network that fits, such as those of a classifier.
    """

    network: Network
    label: str
    others: tuple[str, ...]
    unused: tuple[str, ...]


def choose_network(
    encoder: nn.Module, architecture: str, tables: Tables, file: str, asked: str | None = None
) -> Choice:
    """Chooses the network in a file whose weights an encoder takes, the same one in every process.

    Args:
        encoder: The encoder that is to get the weights.
        architecture: Its name, that of a model of timm or torchvision.
        tables: The dicts of tensors in the file, see `read_state_dicts`.
        file: The file's name, for messages.
        asked: Name of the wanted network, or a part of it. None takes what its authors evaluate, by CONVENTIONS.

    Raises:
        UserError: If no network fits, or if none or several have the name `asked`.
    """
    found = find_networks(encoder, architecture, tables)
    fitting = sorted((one for one in found if not one.misfit), key=lambda one: _rank(one.name))
    if not fitting:
        raise UserError(f"{file} {_why_none(encoder, found, tables)}")
    distinct: list[Network] = []
    for one in fitting:
        if not any(one.equals(other) for other in distinct):
            distinct.append(one)
    labels = _labels([one.name for one in distinct])
    taken = 0 if asked is None else _find_requested(asked.rstrip(".") or TOP, fitting, distinct, labels, file)
    network = distinct[taken]
    assigned = {name for one in fitting if one.where == network.where for name in _tensors_of(one, network)}
    unused = tuple(name for name in network.tensors if name not in assigned)
    others = tuple(label for i, label in enumerate(labels) if i != taken)
    return Choice(network, labels[taken] if others else "", others, unused)


def _why_none(encoder: nn.Module, found: list[Network], tables: Tables) -> str:
    """Returns why the network that comes nearest does not fit."""
    if found:
        return max(found, key=lambda one: len(one.names)).misfit
    state, has = list(encoder.state_dict()), [name for _, table in tables for name in table]
    return f"fits 0 of {len(state)} tensors of the encoder; it lacks {some(state)}" + and_has(has)


def _rank(name: str) -> list[int]:
    """Returns a key by which the networks that authors evaluate are sorted to the front."""

    def has(words: str | None) -> bool:
        return words is not None and re.search(rf"(^|[._])({words})($|[._])", name) is not None

    return [has(last) - has(first) for first, last in CONVENTIONS]


def _labels(names: list[str]) -> list[str]:
    """Returns each name without what all begin with, and no longer than distinguishes it."""
    split = [name.split(".") if name != TOP else [] for name in names]
    while len(names) > 1 and all(split) and len({parts[0] for parts in split}) == 1:
        split = [parts[1:] for parts in split]
    labels = []
    for parts, name in zip(split, names, strict=True):
        lengths = (n for n in range(1, len(parts) + 1) if sum(other[:n] == parts[:n] for other in split) == 1)
        labels.append(".".join(parts[: next(lengths, len(parts))]) or name)
    return labels


def _find_requested(asked: str, fitting: list[Network], distinct: list[Network], labels: list[str], file: str) -> int:
    """Returns which of `distinct` the user has asked for.

    Raises:
        UserError: If none or several fit what was asked.
    """
    readings: tuple[Callable[[Network], bool], ...] = (
        lambda one: asked == one.name,
        lambda one: asked == one.prefix.rstrip("."),
        lambda one: f"{one.prefix}".startswith(f"{asked}."),
        lambda one: f"{one.name}.".startswith(f"{asked}."),
        lambda one: f".{asked}." in f".{one.name}.",
    )
    for fits in readings:
        named = [one for one in fitting if fits(one)]
        which = {next(i for i, kept in enumerate(distinct) if kept.equals(one)) for one in named}
        if len(which) == 1:
            return which.pop()
        if which:
            raise UserError(f"{file}#{asked} may be {' or '.join(labels[i] for i in sorted(which))}: say which")
    raise UserError(f"{file} has no network {asked} that fits the encoder; those that fit: {', '.join(labels)}")


def _tensors_of(one: Network, taken: Network) -> list[str]:
    """Returns the names of a network's tensors in its dict: those that were taken, or all of another network."""
    if one is taken or not one.prefix:
        return list(one.names.values())
    return [name for name in one.tensors if name.startswith(one.prefix)]
