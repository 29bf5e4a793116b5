"""Finds the networks in a file that may be an encoder's weights, whatever stands before their names."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import ssl_core.encoders.build as encoders
from ssl_core.encoders.state_dicts import Tables
from ssl_core.errors import some

COUNTERS = "num_batches_tracked"  # of batch norm; older files lack them, and nothing here reads them
TOP = "."  # the name of a network whose tensors have no prefix and lie in no dict of their own


@dataclass(frozen=True)
class Network:
    """Holds a network found in a file, compared with an encoder.

    Attributes:
        where: Keys of the dicts that it lies in, joined by dots.
        prefix: What stands before all its names, ending in a dot, or "".
        names: The encoder's names, each with the file's name for it.
        tensors: All tensors of the dict that it lies in, by the file's names.
        order: What the numbers of an nn.Sequential stand for, for people, or "".
        misfit: Why it is not the encoder, for people, or "".
    """

    where: str
    prefix: str
    names: dict[str, str]
    tensors: dict[str, Tensor]
    order: str
    misfit: str

    @property
    def name(self) -> str:
        """Returns the keys and the prefix, joined by dots; TOP if there are neither."""
        return ".".join(filter(None, (self.where, self.prefix.rstrip(".")))) or TOP

    def state(self) -> dict[str, Tensor]:
        """Returns its tensors by the encoder's names."""
        return {name: self.tensors[of] for name, of in self.names.items()}

    def equals(self, other: "Network") -> bool:
        """Returns whether both networks hold the same numbers for the encoder."""
        mine, others = self.state(), other.state()
        return mine.keys() == others.keys() and all(torch.equal(mine[name], others[name]) for name in mine)


def find_networks(encoder: nn.Module, architecture: str, tables: Tables) -> list[Network]:
    """Finds every network in a file that has some of an encoder's names.

    A dot counts as an underscore, which timm writes into the names of stages, and what timm puts before the names of a
    model that it wraps is left out. Names may begin with the number of a child, as in
    nn.Sequential(*model.children()), if they fit the children in their order.

    Args:
        encoder: The encoder.
        architecture: The name of the model of timm or torchvision that it is a part of.
        tables: The dicts of tensors in the file.

    Returns:
        The networks in the file's order. Those without a misfit hold the encoder's weights.
    """
    state, wrapper = encoder.state_dict(), encoders.feature_prefix(encoder)
    wanted = {_plain(name.removeprefix(wrapper)): name for name in state}
    whole = encoders.build_full_model(architecture)
    children = [name for name, child in whole.named_children() if child.state_dict()]
    blocks = _blocks(list(whole.state_dict()))
    found: list[Network] = []

    def hold(where: str, table: dict[str, Tensor], prefix: str, read_as: dict[str, str], child: dict[str, str]) -> None:
        """Adds the network below `prefix`; `read_as`: names as they are read, of those in the file."""
        own = {read[len(prefix) :]: name for read, name in read_as.items() if read.startswith(prefix)}
        plain = {_plain(read): name for read, name in own.items()}
        names = {wanted[name]: plain[name] for name in wanted if name in plain}
        if len(names) > (len(wanted) // 2 if child else 0):  # numbers fit a few names of anything
            left = [read for read, name in own.items() if name not in set(names.values())]
            misfit = _misfit(state, names, table, [name for name in left if _is_deeper(name, blocks)])
            used = {read.partition(".")[0] for read, name in own.items() if name in set(names.values())}
            order = ", ".join(f"{number} as {name}" for number, name in child.items() if name in used)
            found.append(Network(where, prefix, names, table, order, misfit))

    for where, table in tables:
        for prefix in _prefixes(list(table), list(wanted)):
            hold(where, table, prefix, {name: name for name in table}, {})
    if all(one.misfit for one in found):
        for where, table in tables:
            for prefix in _numbered(list(table)):
                hold(where, table, prefix, *_in_order(list(table), prefix, children))
    return found


def _plain(name: str) -> str:
    return name.replace(".", "_")


def _prefixes(names: list[str], wanted: list[str]) -> list[str]:
    """Returns what stands in `names` before the first, middle or last of the `wanted` ones, in the order of `names`.

    It looks for three of them so that of a file that lacks one the message can say what it lacks.
    """
    ends = dict.fromkeys([wanted[0], wanted[len(wanted) // 2], wanted[-1]])
    found = {}
    for name in names:
        for end in ends:
            prefix = name[: -len(end)]
            if _plain(name).endswith(end) and (not prefix or prefix.endswith(".")):
                found[prefix] = None
    return list(found)


def _in_order(names: list[str], prefix: str, children: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Reads the numbers below `prefix` as `children` in their order.

    Children without weights, such as a ReLU, may be counted or not.

    Returns:
        The names as they are read, each with the file's name for it, and each number with the child that it stands for.
    """
    heads = {name: _head(name, prefix) for name in names if name.startswith(prefix)}
    child = dict(zip(sorted({head for head in heads.values() if head.isdigit()}, key=int), children))
    read_as = {
        prefix + child[head] + name[len(prefix) + len(head) :]: name for name, head in heads.items() if head in child
    }
    return read_as, child


def _numbered(names: list[str]) -> list[str]:
    """Returns every prefix that is followed by a number, in the order of `names`."""
    found = {}
    for name in names:
        parts = name.split(".")
        for i, part in enumerate(parts):
            if part.isdigit():
                found["".join(f"{p}." for p in parts[:i])] = None
    return list(found)


def _head(name: str, prefix: str) -> str:
    return name[len(prefix) :].partition(".")[0]


def _blocks(names: list[str]) -> dict[str, set[str]]:
    """Returns for each prefix in `names` the numbers that follow it."""
    found: dict[str, set[str]] = {}
    for name in names:
        for prefix in _numbered([name]):
            found.setdefault(prefix, set()).add(_head(name, prefix))
    return found


def _is_deeper(name: str, blocks: dict[str, set[str]]) -> bool:
    """Returns whether a name lies in a block that `blocks` does not have: it is of a deeper architecture."""
    return any(prefix in blocks and _head(name, prefix) not in blocks[prefix] for prefix in _numbered([name]))


def _misfit(state: dict[str, Tensor], matched: dict[str, str], table: dict[str, Tensor], deeper: list[str]) -> str:
    missing = [name for name in state if name not in matched and not name.endswith(COUNTERS)]
    if missing:
        has = [name for name in table if name not in matched.values()]
        return f"fits {len(matched)} of {len(state)} tensors of the encoder; it lacks {some(missing)}" + and_has(has)
    wrong = [
        f"{of} {tuple(table[of].shape)} instead of {tuple(state[name].shape)}"
        for name, of in matched.items()
        if table[of].shape != state[name].shape
    ]
    if wrong:
        return f"has other shapes than the encoder: {some(wrong)}"
    return f"is of a deeper network than the encoder: it has {some(deeper)}, too" if deeper else ""


def and_has(names: list[str]) -> str:
    """Returns the end of a sentence that says which names there are as well; "" if there are none."""
    return f", and has {some(names)}" if names else ""
