"""Finds the extension points of one file each (tasks, evaluators, sources) in their folders."""

import importlib
import pkgutil
from types import ModuleType


def modules(package: ModuleType) -> dict[str, ModuleType]:
    """Imports every module of a package whose name begins with no underscore.

    Returns:
        The modules by their short names, in alphabetical order.
    """
    names = sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))
    return {name: importlib.import_module(f"{package.__name__}.{name}") for name in names}


def subclass_in(module: ModuleType, base: type) -> type | None:
    """Returns the first subclass of `base` that the module itself defines and does not import; None without one."""
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__:
            return value
    return None
