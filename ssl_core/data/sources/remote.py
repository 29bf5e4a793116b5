"""A packed dataset, Parquet shards or a folder of images at a URL that fsspec opens, such as s3:// or hf://."""

from pathlib import PurePosixPath
from urllib.parse import unquote

import numpy as np

from ssl_core.data.data_source import DataSource
from ssl_core.data.dataset import Source
from ssl_core.data.image_names import SkippedFiles
from ssl_core.data.label_table import split_column
from ssl_core.data.listing import METADATA, saying_if_slow
from ssl_core.data.mask_names import is_list
from ssl_core.data.packing.index import INDEX, PLAN
from ssl_core.data.packing.record import ShardEntry
from ssl_core.data.remote import RemoteFiles, RemoteShard
from ssl_core.data.sampler import WINDOW
from ssl_core.data.sources.packed import build_source, parse_index
from ssl_core.data.sources.parquet import END, source_of_parquet
from ssl_core.data.table_folder import from_images
from ssl_core.errors import ObjectNotFound, StorageError, UserError, some
from ssl_core.storage.object_cache import LIMIT_VARIABLE, cache_limit, read_cached
from ssl_core.storage.object_store import Object, check_url, is_url, list_objects, read, stat
from ssl_core.storage.retry import RetryDeadline, short_deadline

NAMED = 5  # how many of the files that are left out a note names


class Remote(DataSource):
    """Opens a URL."""

    fallback = True  # a plug-in may have a scheme of its own

    def opens(self, data: str) -> bool:
        """Returns whether a value of --data is a URL."""
        return is_url(data)

    def load(self, data: str, size: int | None) -> Source:
        """Opens the dataset at a URL.

        Args:
            data: The URL; and behind a # the column of the labels in a table that lies there.
            size: The side in pixels that images are delivered at; None: the dataset's own.

        Raises:
            UserError: If nothing can be read there, what there is is damaged, or the cache is too small for it.
        """
        place, column = split_column(data)
        url = check_url(place)
        cache_limit()
        try:
            with short_deadline():
                return _load(url, column, size)
        except ObjectNotFound as error:
            raise UserError(f"--data {url}: nothing is there") from error
        except StorageError as error:
            raise UserError(f"--data {url}: {error}") from error


def _load(url: str, column: str | None, size: int | None) -> Source:
    name = unquote(url.rsplit("/", 1)[-1])
    try:
        index = stat(f"{url}/{INDEX}")
    except ObjectNotFound:
        return _folder(url, name, column, size)
    if column:
        raise UserError(f"--data {url}#{column}: packed datasets have no columns")
    # not from the cache: where a store tells no ETag, an index of other shards may look like the old one
    index = parse_index(url, read(index, 0, index.size, RetryDeadline()))

    def read_file(name: str, sha256: str) -> bytes:
        return read_cached(stat(f"{url}/{name}")._replace(sha256=sha256))

    def shard_of(shard: ShardEntry) -> RemoteShard:
        name = PurePosixPath(shard.name).name
        return RemoteShard(Object(f"{url}/{name}", shard.bytes, shard.sha256, shard.sha256))

    source = build_source(url, name, index, read_file, shard_of, size, windowed=True)
    least = (WINDOW + 1) * max(shard.bytes for split in index.splits.values() for shard in split.shards)
    if least > cache_limit():
        raise UserError(f"--data {url} needs {LIMIT_VARIABLE} of {least / 1e9:.3g} at least, better twice as much")
    return source


def _folder(url: str, name: str, column: str | None, size: int | None) -> Source:
    gone: list[Exception] = []
    others = SkippedFiles()

    def is_table(path: str) -> bool:
        return path.rpartition("/")[2] in METADATA

    def is_parquet(path: str) -> bool:
        return path.lower().endswith(END) and not is_table(path)

    def is_wanted(path: str) -> bool:
        return path == PLAN or is_table(path) or is_parquet(path) or is_list(path) or others.wants(path)

    with saying_if_slow(lambda: f"listing {url}"):
        found = list_objects(url, is_wanted, gone.append)
    if PLAN in found:
        raise UserError(f"--data {url}: not packed to the end; run the same tilespin pack again")

    def make(paths: list[str], labels: np.ndarray) -> RemoteFiles:
        return RemoteFiles([found[path] for path in paths], labels)

    left_out = others.clauses()
    if gone:
        left_out.append(f"{len(gone):,} files are left out, such as {'; '.join(sorted(map(str, gone))[:NAMED])}")
    shards = {path: obj for path, obj in found.items() if is_parquet(path)}
    tables = {path: obj for path, obj in found.items() if is_table(path)}
    lists = {path: obj for path, obj in found.items() if is_list(path)}
    others_found = {*shards, *tables, *lists}
    sizes = {path: obj.size for path, obj in found.items() if path not in others_found}
    if shards:
        few = max(1, len(sizes))
        notes = [f"left out: {some(sorted([*sizes, *tables]))} beside the shards"] if sizes or tables else []
        files = list(shards.values())
        if source := source_of_parquet(url, name, list(shards), files, column, size, [*left_out, *notes], few):
            return source
        left_out.append(f"left out: {some(sorted(shards))} beside the images")
    contents, names = ({path: read_cached(obj) for path, obj in of.items()} for of in (tables, lists))
    return from_images(url, name, sizes, contents, column, make, size, left_out, bool(column), names)
