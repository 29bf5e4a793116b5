"""An S3 server of our own, for tests."""

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """moto's server while the block runs; yields the environment in which programs talk to it. Skips without moto."""
    server_of = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    # moto keeps its buckets in the process, not in the server: an earlier server's are still there
    urllib.request.urlopen(urllib.request.Request(f"{address}/moto-api/reset", method="POST")).close()
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
    try:
        yield {
            "AWS_ENDPOINT_URL": address,
            **dict.fromkeys(names, "us-east-1"),
        }
    finally:
        server.stop()
