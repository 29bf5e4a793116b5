"""Defines what every data source is, and lists them all."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import ssl_core.data.sources
from ssl_core.errors import UserError
from ssl_core.plugins import Kind, is_built_in

if TYPE_CHECKING:
    from ssl_core.data.dataset import Source


class DataSource(ABC):
    """A kind of dataset: one file in ssl_core/data/sources/ with one subclass of this, or a plug-in.

    Attributes:
        name: What --data takes for a dataset that has a name of its own, such as cifar10; None for a kind of folder, of
            file or of URL.
        fallback: Whether it is asked only if no other source opens a value of --data.
    """

    name: ClassVar[str | None] = None
    fallback: ClassVar[bool] = False

    @abstractmethod
    def opens(self, data: str) -> bool:
        """Returns whether a value of --data is of this kind; it is asked for every value, so it has to be quick."""

    @abstractmethod
    def load(self, data: str, size: int | None) -> "Source":
        """Opens a dataset that `opens` has accepted.

        Args:
            data: The value of --data.
            size: The side in pixels that images are delivered at, 8 to 4096; None: the dataset's own.

        Raises:
            UserError: If it holds no image, or cannot be fetched or read.
        """


KIND = Kind("data source", DataSource, ssl_core.data.sources, "tilespin.sources", ("opens", "load"))


def data_sources() -> dict[str, DataSource]:
    """Returns every data source, the built-in ones by the name of their file, then plug-ins.

    Raises:
        UserError: If a plug-in cannot be used, or two sources are of one name.
    """
    found = KIND.find()
    datasets: dict[str, str] = {}
    for plugin, kind in found.items():
        if kind.name is not None and (other := datasets.setdefault(kind.name, plugin)) != plugin:
            raise UserError(f"the data sources {other} and {plugin} both have a dataset called {kind.name!r}")
    return {plugin: kind() for plugin, kind in found.items()}


def dataset_names() -> list[str]:
    """Returns the names of the datasets that have one of their own."""
    return [source.name for source in data_sources().values() if source.name is not None]


def source_that_opens(data: str) -> DataSource | None:
    """Returns the source for a value of --data, or None if there is none.

    Raises:
        UserError: If a plug-in and another source both open it.
        OSError: If a place cannot be read.
    """
    known = data_sources()
    for fallback in (False, True):
        names = [name for name, source in known.items() if source.fallback == fallback and source.opens(data)]
        if len(names) > 1 and not all(is_built_in(type(known[name])) for name in names):
            raise UserError(f"--data {data}: several data sources open it: {', '.join(names)}")
        if names:
            return known[names[0]]
    return None
