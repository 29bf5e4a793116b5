"""Finds the files that a path or a pattern such as `birds-{000..127}.tar` stands for."""

import re
from collections.abc import Sequence
from glob import glob, has_magic
from itertools import product
from pathlib import Path

from ssl_core.errors import UserError, some
from ssl_core.storage.object_store import is_url

BRACES = re.compile(r"\{([^{}]*)\}")


def is_file_or_pattern(data: str, ends: tuple[str, ...]) -> bool:
    """Returns whether a value of --data is the path of a file or a pattern of several, and ends with one of `ends`."""
    if is_url(data) or not data.lower().endswith(ends):
        return False
    return Path(data).expanduser().is_file() or has_magic(data) or BRACES.search(data) is not None


def files_of_pattern(data: str) -> tuple[Path, list[str]]:
    """Finds the files that a path, or a pattern with * ? [] or with {000..002} or {a,b}, stands for.

    Args:
        data: The value of --data.

    Returns:
        The folder above all of them, and their paths from there on, sorted.

    Raises:
        UserError: If there is none, or a file that braces name is missing.
    """
    place = Path(data).expanduser()
    patterns = [] if place.is_file() else expand_braces(str(place))  # a name with brackets in it is no pattern
    paths = [Path(found) for pattern in patterns for found in _glob_pattern(pattern)] or [place] * place.is_file()
    if missing := [path for path in paths if not path.is_file()]:
        raise UserError(f"--data {data}: there is no {some(map(str, missing))}")
    if not paths:
        raise UserError(f"--data {data}: no file fits this pattern")
    paths = sorted({path.resolve() for path in paths})
    root = paths[0].parent if len({path.parent for path in paths}) == 1 else _common_folder(paths)
    return root, [path.relative_to(root).as_posix() for path in paths]


def expand_braces(pattern: str) -> list[str]:
    """Returns the names that a pattern with braces stands for, such as `a-{000..002}.tar` or `{train,val}.tar`."""
    pieces = BRACES.split(pattern)
    choices = [[piece] if i % 2 == 0 else _brace_choices(piece) for i, piece in enumerate(pieces)]
    return ["".join(words) for words in product(*choices)]


def _brace_choices(inside: str) -> list[str]:
    if found := re.fullmatch(r"(\d+)\.\.(\d+)", inside):
        first, last = found.groups()
        width = len(first) if first.startswith("0") or len(first) == len(last) else 0
        return [str(i).zfill(width) for i in range(int(first), int(last) + 1)]
    return inside.split(",")


def _glob_pattern(pattern: str) -> list[str]:
    return sorted(glob(pattern)) if has_magic(pattern) else [pattern]


def _common_folder(paths: Sequence[Path]) -> Path:
    return next(parent for parent in paths[0].parents if all(path.is_relative_to(parent) for path in paths))
