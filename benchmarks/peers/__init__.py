"""The kernels' work by other means: one file each, with a function for every kernel whose work it can do.

A function takes the `Work` and returns a callable without arguments that does it; what can be prepared is prepared
before. A file whose package is not installed is left out.
"""

import importlib
import pkgutil
from types import ModuleType


def installed() -> tuple[dict[str, ModuleType], dict[str, str]]:
    """The peers by name, and those that cannot be had with the reason."""
    found, missing = {}, {}
    for module in pkgutil.iter_modules(__path__):
        try:
            found[module.name] = importlib.import_module(f"{__name__}.{module.name}")
        except ImportError as error:
            missing[module.name] = str(error)
    return found, missing
