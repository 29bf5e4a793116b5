"""Any folder of images in formats that Pillow reads, or of tar or Parquet shards, at any depth.

Sub-folders may be splits or classes, or there are no labels.
"""

from pathlib import Path, PurePosixPath

import numpy as np

from ssl_core.data.data_source import DataSource
from ssl_core.data.dataset import Files, Source
from ssl_core.data.label_table import split_column
from ssl_core.data.listing import Listing, compressed_advice, list_folder
from ssl_core.data.parquet_shards import local_object
from ssl_core.data.sources import tars
from ssl_core.data.sources.parquet import source_of_parquet
from ssl_core.data.table_folder import from_images
from ssl_core.data.tar_shards import scan_shards_cached
from ssl_core.errors import UserError, some
from ssl_core.storage.object_store import is_url


class Folder(DataSource):
    """Opens a folder of images or of shards."""

    fallback = True  # a folder may be something more particular, such as a packed dataset

    def opens(self, data: str) -> bool:
        """Returns whether a value of --data is a folder, perhaps with the column of its labels in a table."""
        return not is_url(data) and Path(split_column(data)[0]).expanduser().is_dir()

    def load(self, data: str, size: int | None) -> Source:
        """Lists a folder and reads its shards or, if more images are beside the shards than in them, those images.

        Labels of images are those in metadata.csv, .jsonl or .parquet, if there is one, else the folders' names.

        Args:
            data: The folder; and behind a # the column of the labels in such a table.
            size: The side in pixels that images are delivered at; None: DEFAULT_SIZE.

        Raises:
            UserError: If there is nothing to train on, or the folder cannot be understood.
        """
        place, column = split_column(data)
        root = Path(place).expanduser().resolve()
        listing = list_folder(root)
        left_out = [f"a folder is left out, {error}" for error in listing.unlisted] + listing.left_out.clauses()
        if listing.visited_again:
            left_out.append(f"links to folders that are there already: {some(sorted(listing.visited_again))}")
        if listing.compressed:
            left_out.append(f"compressed shards are left out: {some(sorted(listing.compressed))}")
        if listing.tars and _is_mostly_shards(listing):
            if column:
                raise UserError(f"--data {data}: tar files have no columns")
            if others := sorted([*listing.images, *listing.tables, *listing.parquets]):
                left_out.append(f"left out: {some(others)} beside the shards")
            return tars.source_of_shards(data, root, listing.tars, size, left_out)
        if listing.parquets:
            files = [local_object(root / name) for name in listing.parquets]
            others = sorted([*listing.images, *listing.tables, *listing.tars])
            notes = [*left_out, f"left out: {some(others)} beside the shards"] if others else left_out
            few = max(1, len(listing.images))
            if found := source_of_parquet(data, root.name, listing.parquets, files, column, size, notes, few):
                return found
            left_out.append(f"left out: {some(sorted(listing.parquets))} beside the images")
        if listing.compressed and not listing.images:
            raise UserError(f"--data {data}: {compressed_advice(sorted(listing.compressed)[0])}")
        if listing.tars:
            left_out.append(f"left out: {some(sorted(listing.tars))} beside the images")

        def make(names: list[str], labels: np.ndarray) -> Files:
            return Files([root / name for name in names], labels)

        if empty := _empty_folders(listing):
            left_out.append(f"no images in {some(empty)}")
        tables = {table: (root / table).read_bytes() for table in listing.tables}
        lists = {name: (root / name).read_bytes() for name in listing.lists}
        needed = bool(column)
        return from_images(data, root.name, listing.images, tables, column, make, size, left_out, needed, lists)


def _empty_folders(listing: Listing) -> list[str]:
    """Returns folders without any image beside folders with some: perhaps classes whose images are missing."""
    full = {str(parent) for name in listing.images for parent in PurePosixPath(name).parents}
    parents = {str(PurePosixPath(folder).parent) for folder in full - {"."}}
    return [
        f"{folder}/" for folder in sorted(set(listing.folders) - full) if str(PurePosixPath(folder).parent) in parents
    ]


def _is_mostly_shards(listing: Listing) -> bool:
    if not listing.images:
        return True
    return len(scan_shards_cached(tars.open_shards(listing.root, sorted(listing.tars))).offsets) >= len(listing.images)
