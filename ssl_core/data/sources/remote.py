"""A URL: a packed dataset or a folder of images in a store that fsspec opens, such as s3://, gs:// or https://."""

from pathlib import PurePosixPath
from urllib.parse import unquote

import numpy as np

from ssl_core.data.dataset import Source
from ssl_core.data.image_folder import laid_out
from ssl_core.data.image_names import LeftOut
from ssl_core.data.listing import saying
from ssl_core.data.packing.index import INDEX, TABLE
from ssl_core.data.remote import RemoteFiles, RemoteShard
from ssl_core.data.sampler import WINDOW
from ssl_core.data.sources.packed import assembled, parsed
from ssl_core.errors import BadInput, Gone, StoreFailed
from ssl_core.storage.object_cache import LIMIT, content, limit
from ssl_core.storage.object_store import Object, checked, is_url, listing, look, read
from ssl_core.storage.retry import Patience, briefly

NAMED = 5  # of the files that are left out


def opens(data: str) -> bool:
    return is_url(data)


def load(data: str, size: int | None) -> Source:
    """Raises BadInput if nothing can be read there, or what there is is damaged."""
    url = checked(data)
    limit()
    try:
        with briefly():
            return _load(url, size)
    except Gone as error:
        raise BadInput(f"--data {url}: nothing is there") from error
    except StoreFailed as error:
        raise BadInput(f"--data {url}: {error}") from error


def _load(url: str, size: int | None) -> Source:
    name = unquote(url.rsplit("/", 1)[-1])
    try:
        index = look(f"{url}/{INDEX}")
    except Gone:
        return _folder(url, name, size)
    # not from the cache: where a store tells no ETag, an index of other shards may look like the old one
    index = parsed(url, read(index, 0, index.size, Patience()))
    table = look(f"{url}/{TABLE}")._replace(sha256=str(index.get("table_sha256")))

    def shard_of(shard: dict) -> RemoteShard:
        name = PurePosixPath(shard["name"]).name
        return RemoteShard(Object(f"{url}/{name}", shard["bytes"], shard["sha256"], shard["sha256"]))

    source = assembled(url, name, index, content(table), shard_of, size, windowed=True)
    least = (WINDOW + 1) * max(shard["bytes"] for part in index["splits"].values() for shard in part["shards"])
    if least > limit():
        raise BadInput(f"--data {url} needs {LIMIT} of {least / 1e9:.3g} at least, better twice as much")
    return source


def _folder(url: str, name: str, size: int | None) -> Source:
    gone: list[Exception] = []
    others = LeftOut()
    with saying(lambda: f"listing {url}"):
        found = listing(url, others.wants, gone.append)

    def make(paths: list[str], labels: np.ndarray) -> RemoteFiles:
        return RemoteFiles([found[path] for path in paths], labels)

    left_out = others.clauses()
    if gone:
        left_out.append(f"{len(gone):,} files are left out, such as {'; '.join(sorted(map(str, gone))[:NAMED])}")
    return laid_out(url, name, {path: thing.size for path, thing in found.items()}, make, size, left_out)
