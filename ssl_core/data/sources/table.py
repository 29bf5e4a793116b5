"""A table of image files and their labels, CSV or JSON lines, that lies in a folder with the images.

Those in Parquet are opened by ssl_core/data/sources/parquet.py.
"""

from pathlib import Path

import numpy as np

from ssl_core.data.data_source import DataSource
from ssl_core.data.dataset import Files, Source
from ssl_core.data.label_table import split_column
from ssl_core.data.listing import list_folder
from ssl_core.data.table_folder import from_images
from ssl_core.storage.object_store import is_url


class TableFile(DataSource):
    """Opens a table by its path."""

    def opens(self, data: str) -> bool:
        """Returns whether a value of --data is such a table, perhaps with the column of the labels."""
        place = split_column(data)[0]
        return not is_url(data) and place.lower().endswith((".csv", ".jsonl")) and Path(place).expanduser().is_file()

    def load(self, data: str, size: int | None) -> Source:
        """Opens the images below the table's folder.

        Args:
            data: The table's path; and behind a # the column of the labels.
            size: The side in pixels that images are delivered at; None: that of any folder.

        Raises:
            UserError: If the table is damaged, ambiguous or names no files, or there is nothing to train on.
        """
        place, column = split_column(data)
        return load_table(data, Path(place), column, size)


def load_table(data: str, table: Path, column: str | None, size: int | None) -> Source:
    """Opens the images below a table's folder.

    Args:
        data: The value of --data, for messages.
        table: The table.
        column: The column of the labels; None: see `parse_table`.
        size: The side in pixels that images are delivered at; None: that of any folder.

    Raises:
        UserError: If the table is damaged, ambiguous or names no files, or there is nothing to train on.
    """
    path = table.expanduser().resolve()
    root, listing = path.parent, list_folder(path.parent)

    def make(names: list[str], labels: np.ndarray) -> Files:
        return Files([root / name for name in names], labels)

    listing.left_out.take_back(path.name)
    tables = {path.name: path.read_bytes()}
    left_out = listing.left_out.clauses()
    return from_images(data, root.name, listing.images, tables, column, make, size, left_out, needed=True)
