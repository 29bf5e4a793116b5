"""Where the program and its libraries keep what they make or fetch once: decided here, for all of them."""

import os
import stat
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from ssl_core.errors import TilespinError

# Variables of the XDG base directory specification, which most libraries follow, and what they are by default
BASES = {"XDG_CACHE_HOME": ".cache", "XDG_CONFIG_HOME": ".config"}
# Folders of the user's cache that may hold downloads, and the variables that name them
DOWNLOADS = {"TILESPIN_CACHE": "tilespin", "HF_HOME": "huggingface", "TORCH_HOME": "torch"}
BLOCK = 4096  # bytes that are written to see whether there is room
SOCKETS = 37  # characters: below a longer folder, the paths of Ray's sockets are longer than the system allows


class NoFolder(TilespinError, OSError):
    """No folder can be written, not even a temporary one. The command line exits with 2."""

    exit_code = 2


def prepare() -> None:
    """Sets environment variables so that every library finds folders that can be written.

    They hold for this process and those that it starts. Where the user's own folder cannot be written, a temporary one
    takes its place, which one line on stderr names. What lies in a folder that can only be read is still read.

    Raises:
        NoFolder: If no folder can be written.
    """
    given, found = os.environ.get("TMPDIR"), _system_temporary()
    if given and os.path.abspath(given) != found:
        print(f"tilespin: TMPDIR={given} cannot be written: {found} takes its place", file=sys.stderr, flush=True)
        os.environ["TMPDIR"] = found
    short = found if len(found) <= SOCKETS or not os.access("/tmp", os.W_OK) else "/tmp"
    if short != os.environ.get("TMPDIR", "/tmp"):
        os.environ.setdefault("RAY_TMPDIR", short)
    home = Path(os.path.expanduser("~"))
    if not os.access(home, os.R_OK | os.X_OK) and (
        why := why_unusable(home, make=False)
    ):  # nothing there could be read
        home = temporary_folder(home, why)
        os.environ["HOME"] = str(home)
    for name, usual in BASES.items():
        base = Path(os.environ.get(name) or home / usual)
        if why := why_unusable(base):
            for variable, library in DOWNLOADS.items() if name == "XDG_CACHE_HOME" else ():
                if os.path.isdir(base / library):
                    os.environ.setdefault(variable, str(base / library))
            os.environ[name] = str(temporary_folder(base, why) / usual)
    if "TRITON_HOME" not in os.environ and (why := why_unusable(home)):
        os.environ["TRITON_HOME"] = str(temporary_folder(home, why))


def base_folder() -> Path:
    """Returns the user's cache folder, in which libraries keep theirs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))


def requested_folder() -> Path:
    """Returns where datasets and copies of remote files are kept if it can be written.

    That is $TILESPIN_CACHE, else tilespin/ in the user's cache folder.
    """
    return Path(os.environ.get("TILESPIN_CACHE") or base_folder() / "tilespin")


def folder() -> Path:
    """Returns where datasets and copies of remote files are kept.

    Returns:
        `requested_folder()`, or a temporary folder if that cannot be written.

    Raises:
        NoFolder: If no folder can be written.
    """
    return usable_folder(requested_folder())


@cache
def usable_folder(place: Path) -> Path:
    """Returns a folder that can be written.

    Args:
        place: The folder that is preferred; it is made if it is not there yet.

    Returns:
        `place` if it can be written, else a temporary folder, which is named on stderr.

    Raises:
        NoFolder: If no folder can be written.
    """
    why = why_unusable(place)
    return temporary_folder(place, why) if why else place


def why_unusable(place: Path, make: bool = True) -> OSError | None:
    """Tries to write in a folder.

    Args:
        place: The folder.
        make: Whether to make it if it is not there yet.

    Returns:
        Why nothing can be written there; None if it can.
    """
    try:
        if str(place).startswith("~"):
            raise FileNotFoundError(0, "this user has no home folder")
        if make:
            place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place, buffering=0) as file:
            file.write(bytes(BLOCK))
    except OSError as error:
        return error
    return None


def temporary_folder(place: Path, why: OSError) -> Path:
    """Returns the folder that takes the place of one that cannot be written, and names it on stderr, once.

    Args:
        place: The folder that cannot be written.
        why: For which reason.

    Returns:
        A folder within the system's temporary one, which only this user can enter.

    Raises:
        NoFolder: If that cannot be made.
    """
    global _named
    found = _private()
    if not _named:
        _named = True
        reason = why.strerror or why
        print(f"tilespin: {place} cannot be written ({reason}): caches go to {found}", file=sys.stderr, flush=True)
    return found


_named = False


@cache
def _private() -> Path:
    """Returns the same folder each time, so that it is filled once, unless somebody else has taken its name."""
    place = Path(_system_temporary(), f"tilespin-{os.geteuid()}")
    try:
        with suppress(FileExistsError):
            place.mkdir(0o700)
        state = place.lstat()
        mine = stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid() and not state.st_mode & 0o077
        return place if mine else Path(tempfile.mkdtemp(prefix=f"{place.name}-"))
    except OSError as error:
        raise NoFolder(f"{place} cannot be made: {error}; name a folder for caches in TILESPIN_CACHE") from error


def _system_temporary() -> str:
    try:
        return tempfile.gettempdir()
    except OSError as error:
        raise NoFolder(f"{error.strerror}; name a folder that can be written in TMPDIR") from error
