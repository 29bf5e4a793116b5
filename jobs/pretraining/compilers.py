"""Looks for what torch.compile needs of a machine, before anything runs."""

import os
import shlex
import shutil
import sysconfig
from pathlib import Path

from ssl_core.errors import UserError


def check_compiler(device: str) -> None:
    """Checks that this machine has a compiler for torch.compile, and Python.h, which all that is compiled includes.

    Args:
        device: "cpu", which needs a C++ compiler for its loops, or "cuda", which needs a C compiler for what
            launches Triton's kernels.

    Raises:
        UserError: If one is missing.
    """
    variable, language, usual = ("CC", "C", ("gcc", "clang")) if device == "cuda" else ("CXX", "C++", ("g++",))
    message = os.environ.get(variable, "")
    try:
        words = (
            shlex.split(message) if device == "cpu" else [message] * bool(message)
        )  # Triton takes the whole for a file's name
    except ValueError as error:
        raise UserError(f"{variable} is {message!r}: {error}") from error
    if not any(map(shutil.which, words[:1] or usual)):
        missing = f"{variable}={words[0]} is not there" if words else f"there is no {' or '.join(usual)}"
        package = usual[0]
    elif not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        missing, package = "there is no Python.h", "python3-dev"
    else:
        return
    raise UserError(
        f"--compile needs a {language} compiler and Python's headers, and {missing}: install {package} "
        f"(apt-get install {package}), or leave --compile out"
    )
