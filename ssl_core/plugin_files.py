"""Imports Python files with plug-ins, the same ones in every process of a command.

The environment variable TILESPIN_PLUGINS names them, by absolute paths that are separated as in PATH. A path that is
not absolute begins at the folder that holds this program's packages: so a cluster finds what it was sent. The file
my_task.py is the module ssl_core.plugin_files.my_task: a process that unpickles something of it imports this module
first, which then finds the file. Its folder is not searched for other modules.
"""

import hashlib
import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path

from ssl_core.errors import UserError

VARIABLE = "TILESPIN_PLUGINS"
DIGESTS = "TILESPIN_PLUGIN_DIGESTS"  # NAME=DIGEST for each file as the command found it, separated as in PATH
ROOT = Path(__file__).parents[1]
__path__: list[str] = []  # which makes this module a package

_digests: dict[str, str] = {}  # of the files that this process has imported


def plugin_files() -> dict[str, Path]:
    """Returns the files by the names of their plug-ins.

    Raises:
        UserError: If a file does not exist, its name cannot be a plug-in's, or two have the same name.
    """
    found: dict[str, Path] = {}
    for word in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        path = ROOT / word
        name = path.stem
        if not path.is_file():
            raise UserError(f"--plugin {path}: there is no such file")
        if path.suffix != ".py" or not is_plugin_name(name):
            raise UserError(
                f"--plugin {path}: expected a name of letters, digits and _ that ends with .py, such as my_task.py, "
                "for it names the plug-in"
            )
        if found.setdefault(name, path) != path:
            raise UserError(f"--plugin {path}: {found[name]} has the same name; a plug-in is called as its file")
    return found


def is_plugin_name(name: str) -> bool:
    """Returns whether a name can be a plug-in's: it becomes a part of files' names and of modules' names."""
    return name.isascii() and name.isidentifier() and not name.startswith("_")


def add_files(files: list[str]) -> None:
    """Adds files to those that this process and all that it starts will look in.

    Args:
        files: Paths, absolute or from the current folder.

    Raises:
        UserError: As `plugin_files` does.
    """
    known = [word for word in os.environ.get(VARIABLE, "").split(os.pathsep) if word]
    paths = [str(Path(file).expanduser().resolve()) for file in files]
    if both := dict.fromkeys([*known, *paths]):
        os.environ[VARIABLE] = os.pathsep.join(both)
    plugin_files()


def fix_digests() -> None:
    """Has all processes that this one starts refuse the files if they differ from those that it has imported.

    A run's name says which source it was trained with: one worker more, after a change of the file, would belie it.
    """
    if _digests:
        os.environ[DIGESTS] = os.pathsep.join(f"{name}={digest}" for name, digest in sorted(_digests.items()))


def file_digest(module: str) -> str:
    """Returns the sha256 of the file that a module of this package was imported from."""
    return _digests[module.rpartition(".")[2]]


class _Loader(SourceFileLoader):
    def path_stats(self, path: str) -> dict:  # pyright: ignore[reportIncompatibleMethodOverride]  the stub has Mapping
        raise OSError("no compiled copy is kept: two changes within a second would look alike to it")

    def get_data(self, path: str) -> bytes:
        data = super().get_data(path)
        name, digest = Path(path).stem, hashlib.sha256(data).hexdigest()
        fixed = dict(word.split("=") for word in os.environ.get(DIGESTS, "").split(os.pathsep) if word)
        if fixed.get(name, digest) != digest:
            raise UserError(f"the plug-in {path} was changed after the command had begun: start the command again")
        _digests[name] = digest
        return data


class _Finder(MetaPathFinder):
    def find_spec(self, fullname: str, path, target=None) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        file = plugin_files().get(name) if package == __name__ else None
        return file and spec_from_file_location(fullname, file, loader=_Loader(fullname, str(file)))


sys.meta_path.append(_Finder())
