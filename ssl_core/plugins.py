"""Finds what can be plugged in: tasks, protocols and data sources, each kind the subclasses of one base.

Of each kind there are the built-in ones, one in each file of its folder; those of installed packages, one for each
entry point of its group; and those of single Python files, see plugin_files.py. The file or the entry point names it.
"""

import hashlib
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

import ssl_core.plugin_files as plugin_files
from ssl_core.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Kind(Generic[T]):
    """Describes a kind of what can be plugged in.

    Attributes:
        noun: What messages call one.
        base: The class that each is a subclass of.
        package: The folder of those that are built in.
        group: The group of entry points that installed packages have for theirs.
        required: Attributes that a plug-in has to define, because the base has none, or only a placeholder.
        check: Returns what is wrong with a plug-in apart from that, or None.
    """

    noun: str
    base: type[T]
    package: ModuleType
    group: str
    required: tuple[str, ...]
    check: Callable[[type[T]], str | None] = lambda kind: None

    def find(self) -> dict[str, type[T]]:
        """Returns the classes by name: those built in, in alphabetical order, then those of packages, then of files.

        Raises:
            UserError: If a plug-in cannot be imported, is not of this kind or incomplete, or has the name of another.
        """
        found: dict[str, type[T]] = {}
        origins: dict[str, str] = {}
        for name, kind, origin in (*self._built_in(), *self._installed(), *self._files()):
            if name in found:
                raise UserError(f"two {self.noun}s are called {name}: {origins[name]}, and that of {origin}")
            found[name], origins[name] = kind, f"that of {origin}" if origin else "a built-in one"
        return found

    def _built_in(self) -> Iterator[tuple[str, type[T], str]]:
        names = sorted(m.name for m in pkgutil.iter_modules(self.package.__path__) if not m.name.startswith("_"))
        for name in names:
            module = importlib.import_module(f"{self.package.__name__}.{name}")
            if kind := self._only_subclass(module, f"the module {module.__name__}"):
                yield name, kind, ""

    def _installed(self) -> Iterator[tuple[str, type[T], str]]:
        for entry in _entry_points(self.group, tuple(sys.path)):
            package = f"package {entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"
            origin = f"{package} ({entry.value})"
            if not plugin_files.is_plugin_name(entry.name):
                raise UserError(f"{self.noun} {entry.name} of {origin}: expected a name of letters, digits and _")
            kind = _imported(entry.load, f"{self.noun} {entry.name} of {origin}")
            if not (isinstance(kind, type) and issubclass(kind, self.base)):
                base = f"{self.base.__module__}.{self.base.__qualname__}"
                raise UserError(f"{self.noun} {entry.name} of {origin}: it is no subclass of {base}")
            yield entry.name, self._checked(entry.name, kind, origin), origin

    def _files(self) -> Iterator[tuple[str, type[T], str]]:
        for name, path in plugin_files.plugin_files().items():
            origin, module_name = f"the file {path}", f"{plugin_files.__name__}.{name}"
            module = _imported(partial(importlib.import_module, module_name), f"plug-in {name} of {origin}")
            if kind := self._only_subclass(module, origin):
                yield name, self._checked(name, kind, origin), origin

    def _only_subclass(self, module: ModuleType, origin: str) -> type[T] | None:
        """Returns the subclass that a module itself defines and does not import, or None. A name that begins with _ is
        that of a class for the module's own use. Raises UserError if there are several."""
        public = (value for name, value in vars(module).items() if isinstance(value, type) and not name.startswith("_"))
        found = [
            one for one in dict.fromkeys(public) if issubclass(one, self.base) and one.__module__ == module.__name__
        ]
        if len(found) > 1:
            names = " and ".join(kind.__name__ for kind in found)
            raise UserError(f"{origin} has several {self.noun}s, {names}: expected one in each file")
        return found[0] if found else None

    def _checked(self, name: str, kind: type[T], origin: str) -> type[T]:
        lacks = [one for one in self.required if getattr(kind, one, None) is getattr(self.base, one, None)]
        if why := f"it lacks {', '.join(lacks)}" if lacks else self.check(kind):
            raise UserError(f"{self.noun} {name} of {origin}: {why}")
        return kind


def is_built_in(kind: type) -> bool:
    """Returns whether a class is the program's own and no plug-in."""
    return kind.__module__.startswith("ssl_core.") and not _is_of_file(kind)


def source_digest(kind: type) -> str | None:
    """Returns 12 hex digits of a digest of a plug-in's source: its file, or all Python files of its package.

    Returns None for what is built in.

    Raises:
        UserError: If a package's source cannot be read.
    """
    if is_built_in(kind):
        return None
    return plugin_files.file_digest(kind.__module__)[:12] if _is_of_file(kind) else _package_digest(kind.__module__)


def _is_of_file(kind: type) -> bool:
    return kind.__module__.startswith(f"{plugin_files.__name__}.")


@lru_cache
def _entry_points(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Returns the entry points of a group that are found on `path`, sys.path, by name."""
    return tuple(sorted(entry_points(group=group), key=lambda entry: (entry.name, entry.value)))


@lru_cache
def _package_digest(module: str) -> str:
    parts = module.split(".")
    above = (sys.modules[".".join(parts[:i])] for i in range(1, len(parts) + 1))
    top = next((one for one in above if getattr(one, "__file__", None)), None)  # a namespace package has no file
    file = Path(top.__file__) if top and top.__file__ else Path()
    files = sorted(file.parent.rglob("*.py")) if hasattr(top, "__path__") else [file]
    total = hashlib.sha256()
    try:
        for path in files:
            data = path.read_bytes()
            total.update(f"{path.relative_to(file.parent)}\0{len(data)}\0".encode() + data)
    except OSError as error:
        raise UserError(f"the source of the plug-in {module} cannot be read: {error}") from error
    if not files:
        raise UserError(f"the source of the plug-in {module} cannot be read: there are no Python files in {file}")
    return total.hexdigest()[:12]


def _imported(load: Callable[[], Any], what: str) -> Any:
    try:
        return load()
    except UserError:
        raise
    except Exception as error:  # whatever a plug-in's code raises
        raise UserError(f"{what}: it cannot be imported: {type(error).__name__}: {error}") from error
