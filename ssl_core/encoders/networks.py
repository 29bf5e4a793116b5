"""The networks in a file that an encoder's weights may be, whatever stands before their names."""

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
    """A network in a file, held against an encoder."""

    where: str  # the keys of the dicts that it lies in, joined by dots
    prefix: str  # what stands before all its names, with a dot at its end, or ""
    names: dict[str, str]  # of the encoder: of the file
    tensors: dict[str, Tensor]  # of the file's dict
    order: str  # what the numbers of an nn.Sequential stand for, or ""
    misfit: str  # why it is not the encoder, or ""

    @property
    def name(self) -> str:
        return ".".join(filter(None, (self.where, self.prefix.rstrip(".")))) or TOP

    def state(self) -> dict[str, Tensor]:
        """Its tensors by the encoder's names."""
        return {name: self.tensors[of] for name, of in self.names.items()}

    def equals(self, other: "Network") -> bool:
        """Whether both hold the same numbers for the encoder."""
        mine, others = self.state(), other.state()
        return mine.keys() == others.keys() and all(torch.equal(mine[name], others[name]) for name in mine)


def find_networks(encoder: nn.Module, architecture: str, tables: Tables) -> list[Network]:
    """Every network in `tables` that has some of the names of `encoder`, which was cut from timm's or torchvision's
    `architecture`, in the file's order. Those without a misfit are the encoder.

    A dot counts as an underscore, which timm writes into the names of stages, and what timm puts before the names of a
    model that it wraps is left out. Names may begin with the number of a child, as in
    nn.Sequential(*model.children()), if they fit the children in their order.
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
    """What stands in `names` before the first, the middle or the last of the `wanted` ones, in the order of `names`;
    three of them, so that a file that lacks one can be told what it lacks."""
    ends = dict.fromkeys([wanted[0], wanted[len(wanted) // 2], wanted[-1]])
    found = {}
    for name in names:
        for end in ends:
            prefix = name[: -len(end)]
            if _plain(name).endswith(end) and (not prefix or prefix.endswith(".")):
                found[prefix] = None
    return list(found)


def _in_order(names: list[str], prefix: str, children: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The `names` below `prefix`, with its numbers replaced by `children` in their order, and which stands for which.
    Children without weights, such as a ReLU, may be counted or not."""
    heads = {name: _head(name, prefix) for name in names if name.startswith(prefix)}
    child = dict(zip(sorted({head for head in heads.values() if head.isdigit()}, key=int), children))
    read_as = {
        prefix + child[head] + name[len(prefix) + len(head) :]: name for name, head in heads.items() if head in child
    }
    return read_as, child


def _numbered(names: list[str]) -> list[str]:
    """Every prefix that is followed by a number, in the order of `names`."""
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
    """The numbers that follow each prefix in `names`."""
    found: dict[str, set[str]] = {}
    for name in names:
        for prefix in _numbered([name]):
            found.setdefault(prefix, set()).add(_head(name, prefix))
    return found


def _is_deeper(name: str, blocks: dict[str, set[str]]) -> bool:
    """Whether it lies in one block more than `blocks` has of its kind: it is of another, deeper architecture."""
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
    return f", and has {some(names)}" if names else ""
