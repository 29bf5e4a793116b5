"""Finds where an encoder's pretraining starts: at random, or from pretrained weights."""

import os
from functools import lru_cache

import ssl_core.encoders.build as encoders
from ssl_core.encoders.pretrained import RANDOM, Pretrained, load_pretrained, with_place
from ssl_core.errors import UserError
from ssl_core.storage.object_store import is_url


@lru_cache(maxsize=4)
def load_start(init: str) -> Pretrained | None:
    """Loads the weights that --init names, once in a process; they are not to be changed.

    Args:
        init: The option's value: "random", or what --encoder of `tilespin evaluate` takes.

    Returns:
        The encoder, or None for random initialization.

    Raises:
        UserError: If there is no such encoder, or it cannot be downloaded or read.
    """
    if init == RANDOM:
        return None
    try:
        start = load_pretrained(init)
    except UserError as error:
        raise UserError(str(error).replace("--encoder", "--init", 1)) from error
    if start.encoder is None:
        raise UserError(f"--init {init}: that is at random: --init {RANDOM} --encoder {start.architecture}")
    return start


def start_digest(init: str) -> str | None:
    """Returns a digest of the weights that --init names; None for random initialization."""
    start = load_start(init)
    return encoders.digest(start.encoder) if start and start.encoder else None


def resolve_start(init: str) -> str:
    """Makes the path of a file or folder absolute, so that it is found from whatever folder a run is continued in."""
    return with_place(init, lambda place: place if is_url(place) else os.path.abspath(os.path.expanduser(place)))
