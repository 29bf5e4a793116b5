"""Joining a cluster that does not answer: in the time that is allowed, with a word at once."""

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from support.command import ROOT, environment

from benchmarks.harness.local_nodes import free_port
from cluster.head import BadAddress, ClusterError, wait_for_head
from cluster.session import session

pytestmark = pytest.mark.slow


@contextmanager
def silence() -> Iterator[int]:
    """A port whose connections nobody ever answers, as behind a firewall that drops them."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield server.getsockname()[1]


@contextmanager
def website() -> Iterator[int]:
    with HTTPServer(("0.0.0.0", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@contextmanager
def nobody() -> Iterator[int]:
    yield free_port()


@pytest.mark.parametrize(
    ("there", "why"),
    [(nobody, "refused"), (silence, "no answer within"), (website, "is not the head of a Ray cluster")],
)
@pytest.mark.network
def test_a_cluster_that_does_not_answer(there, why):
    words, began = [], time.monotonic()
    with there() as port, pytest.raises(ClusterError, match=why) as error:
        wait_for_head(f"127.0.0.1:{port}", 1, words.append)
    assert time.monotonic() - began < 30 and "\n" not in str(error.value) and str(port) in str(error.value)
    if there is not website:  # which will not turn into one
        (word,) = words
        assert "trying for up to 1 s" in word and why in word and "tried for 1 s" in str(error.value)


def test_a_name_that_nobody_knows():
    with pytest.raises(ClusterError, match=r"no Ray cluster answers at nowhere\.invalid:6379: .*not found; tried"):
        wait_for_head("nowhere.invalid:6379", 0, print)


@pytest.mark.parametrize(
    "address", ["ray://127.0.0.1:10001", "http://127.0.0.1:8265", "head", "head:", ":6379", "head:http", "head:70000"]
)
def test_what_is_no_address_of_a_head(address):
    with pytest.raises(BadAddress, match="HOST:PORT"):
        wait_for_head(address, 60, print)


@pytest.mark.ray
def test_a_cluster_that_comes_while_it_is_waited_for():
    """Found at the address of its head; another port of it is not."""
    with session(cpus=1):
        import ray

        words, address = [], ray.get_runtime_context().gcs_address
        assert wait_for_head(address, 60, words.append) == address and not words
        raylet = next(node["NodeManagerPort"] for node in ray.nodes())
        with pytest.raises(ClusterError, match="not the head of a Ray cluster"):
            wait_for_head(f"{address.partition(':')[0]}:{raylet}", 60, words.append)


def test_a_user_sees_lines_that_help_and_none_of_rays(shapes, tmp_path):
    command = [
        sys.executable,
        "-m",
        "jobs.cli",
        "pretrain",
        "rotnet",
        "--data",
        shapes,
        "--size",
        32,
        "--steps",
        1,
        "--storage",
        tmp_path,
        "--workers",
        1,
        "--cluster-timeout",
        "1s",
        "--wandb",
        "off",
    ]
    done = subprocess.run(
        [*map(str, command)],
        cwd=ROOT,
        env=environment() | {"RAY_ADDRESS": "127.0.0.1:1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    *_, waiting, failed = done.stderr.splitlines()
    assert "trying for up to 1 s" in waiting and "tried for 1 s" in failed
    assert not re.search(r"\.(cc|h|py):\d+\b|Traceback", done.stderr), done.stderr
    assert BadAddress.exit_code == 2 and ClusterError.exit_code == 1
