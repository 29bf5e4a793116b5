"""Saves memory by computing the activations of an encoder's blocks again in the backward pass instead of keeping them.

Source: Chen et al. 2016, arXiv:1604.06174.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.checkpoint import checkpoint

from ssl_core.errors import UserError

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def checkpoint_blocks(encoder: nn.Module) -> None:
    """Makes an encoder's blocks keep their inputs alone while gradients are computed; names of weights stay.

    Weights, buffers and random numbers are the same bits as without: what batch norm and others write into their
    buffers when they are computed again is thrown away, and dropout drops the same.

    Args:
        encoder: The encoder. Nothing happens to blocks that do so already.
    """
    for block in find_blocks(encoder):
        if "forward" not in vars(block):
            block.forward = _checkpointed(block)


def check_blocks(encoder: nn.Module, name: str) -> None:
    """Checks that there is something to compute again.

    Args:
        encoder: The encoder.
        name: Its name.

    Raises:
        UserError: If it has no blocks.
    """
    if not find_blocks(encoder):
        raise UserError(
            f"--activation-checkpointing: encoder {name!r} has no blocks whose activations could be computed again; "
            "leave it out, or choose another encoder"
        )


def find_blocks(encoder: nn.Module) -> list[nn.Module]:
    """Returns the blocks of an encoder: modules of several layers that lie in a container and in which no others lie.

    These are residual blocks, transformers' blocks, and stages that are plain sequences of layers. A module with a hook
    somewhere in it is none, for the hook would be called again too.

    Args:
        encoder: The encoder.
    """
    return _blocks(encoder, in_container=False)


def _blocks(module: nn.Module, in_container: bool) -> list[nn.Module]:
    inner = [block for child in module.children() for block in _blocks(child, isinstance(module, CONTAINERS))]
    # some blocks have a small part of theirs in containers too
    if 2 * sum(map(_weights, inner)) > _weights(module) or not (in_container and _is_block(module)):
        return inner
    return [module]


def _weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _is_block(module: nn.Module) -> bool:
    """Returns whether a module can be called, has several layers with weights, and no hooks."""
    callable_ = type(module).forward is not nn.Module.forward  # a ModuleList cannot
    layers = sum(any(True for _ in one.parameters(recurse=False)) for one in module.modules())
    return (
        callable_ and layers > 1 and not any(one._forward_hooks or one._forward_pre_hooks for one in module.modules())
    )


def _checkpointed(block: nn.Module) -> Callable:
    """Returns what takes the place of a block's `forward`."""
    forward = block.forward

    def run(*given, **named):
        if not torch.is_grad_enabled():
            return forward(*given, **named)
        given, named = tree_map(lambda one: one, (given, named))  # lists may grow later, as DenseNets' do
        inputs = [one for one in tree_leaves((given, named)) if isinstance(one, Tensor)]
        again = partial(_computed_again, block, inputs, [one._version for one in inputs])
        return checkpoint(
            partial(forward, **named), *given, use_reentrant=False, context_fn=lambda: (nullcontext(), again())
        )

    return run


@contextmanager
def _computed_again(block: nn.Module, inputs: list[Tensor], versions: list[int]) -> Iterator[None]:
    """Throws away what a block writes into its buffers while it is computed again.

    Raises:
        UserError: If an input is no longer what it was.
    """
    if [one._version for one in inputs] != versions:
        raise UserError(
            f"--activation-checkpointing: what a {type(block).__name__} of this encoder is given is overwritten later; "
            "leave it out, or choose another encoder"
        )
    kept: list[tuple[nn.Module, str, Any]] = [
        (module, name, buffer) for module in block.modules() for name, buffer in module.named_buffers(recurse=False)
    ]
    for module, name, buffer in kept:
        setattr(module, name, buffer.clone())
    try:
        yield
    finally:
        for module, name, buffer in kept:
            setattr(module, name, buffer)
