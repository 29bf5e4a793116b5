"""Finds the one-file extension points (tasks, evaluators, sources) by what lies in their folder."""

import importlib
import pkgutil
from types import ModuleType


def modules(package: ModuleType) -> dict[str, ModuleType]:
    """Every public module of `package` by its short name, in alphabetical order."""
    names = sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))
    return {name: importlib.import_module(f"{package.__name__}.{name}") for name in names}


def subclass_in(module: ModuleType, base: type) -> type | None:
    """The subclass of `base` that `module` itself defines, or None."""
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__:
            return value
    return None
