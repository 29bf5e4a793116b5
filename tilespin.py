"""Pretrains image encoders with pretext tasks, and says which task learned the best representation of your images.

    import tilespin

    run = tilespin.pretrain("rotnet", "photos", steps=2000)
    results = tilespin.evaluate(run, "labeled-photos", protocols=["linear", "knn"])
    print(results.to_pandas())

What it offers is defined in `jobs.api` and imported when it is first used, since PyTorch takes seconds to load.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.api import (
        Comparison,
        Results,
        Run,
        Study,
        UserError,
        compare,
        embed,
        evaluate,
        list_encoders,
        list_protocols,
        list_tasks,
        load_encoder,
        pretrain,
        study,
    )

__all__ = [
    "Comparison",
    "Results",
    "Run",
    "Study",
    "UserError",
    "compare",
    "embed",
    "evaluate",
    "list_encoders",
    "list_protocols",
    "list_tasks",
    "load_encoder",
    "pretrain",
    "study",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module tilespin has no attribute {name!r}")
    for package in ("kernels", "ssl_core", "cluster", "jobs"):
        _check_own(package)
    return getattr(import_module("jobs.api"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _check_own(package: str) -> None:
    """Raises ImportError if another package of this name is imported in place of Tilespin's."""
    found = import_module(package)
    here = Path(__file__).parent / package
    places = [Path(place) for place in getattr(found, "__path__", ())]
    if here not in places:
        other = places[0] if places else getattr(found, "__file__", "another place")
        raise ImportError(f"tilespin needs its own package {package} of {here}, but {other} is imported in its place")
