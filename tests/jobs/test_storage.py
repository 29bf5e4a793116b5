"""A study whose storage is an object store: it trains, is killed, continues, is judged and compared there."""

import csv
import json
import signal
import time

import fsspec
import pytest
from support.command import environment, forked, run_forked
from support.s3_server import s3_server

pytestmark = [pytest.mark.network, pytest.mark.slow]

DATA = ["--size", "32", "--decode-threads", "1", "--wandb", "off"]


@pytest.fixture(scope="module")
def bucket():
    """-> (s3://bucket, a file system that sees it, the environment of programs)."""
    with s3_server() as settings, pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        filesystem = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
        filesystem.mkdir("bucket")
        yield "s3://bucket", filesystem, environment() | settings


def test_a_killed_run_continues_from_the_bucket_and_is_judged(bucket, shapes, tmp_path):
    """The weights are those of a run on the disk that nobody killed; the comparison lands beside them."""
    url, filesystem, env = bucket
    recipe = ["pretrain", "rotnet", "--data", shapes, "--steps", 80, "--batch", 16, *DATA, "--name", "one"]
    mine = [*recipe, "--storage", f"{url}/runs", "--checkpoint-every", 10]
    with forked(*mine, env=env) as driver:
        while driver.poll() is None and not filesystem.glob("bucket/runs/one/pretrain/*/checkpoints/step-*.json"):
            time.sleep(0.05)
        driver.send_signal(signal.SIGKILL)
        assert driver.wait().returncode == -signal.SIGKILL, "it ended before it could be killed"
    for words in (mine, [*recipe, "--storage", tmp_path]):
        run_forked(*words, env=env).check_returncode()
    (path,) = filesystem.glob("bucket/runs/one/pretrain/*/encoder.json")
    (there,) = tmp_path.glob("one/pretrain/*/encoder.json")
    kept, alone = json.loads(filesystem.cat_file(path)), json.loads(there.read_text())
    assert kept["digest"] == alone["digest"]
    assert kept["training"]["restarts"] == 1 and alone["training"]["restarts"] == 0
    rows = [
        json.loads(line) for line in filesystem.cat_file(path.replace("encoder.json", "metrics.jsonl")).splitlines()
    ]
    assert [row["step"] for row in rows if "loss" in row] == [20, 40, 60, 80]

    study = f"{url}/runs/one"
    run_forked("evaluate", study, "--num-labels", 100, "--wandb", "off", env=env).check_returncode()
    table = list(csv.DictReader(filesystem.cat_file("bucket/runs/one/results.csv").decode().splitlines()))
    assert {row["task"] for row in table} == {"rotnet", "random-init", "raw-pixels"}
    assert b"<svg" in filesystem.cat_file("bucket/runs/one/report.html")
    left = filesystem.find("bucket/runs/one")
    assert not [path for path in left if path.endswith("driver.json")], "the lock is given back"


def test_a_bucket_that_is_not_there_is_one_clear_line(bucket, shapes):
    _, _, env = bucket
    arguments = ("pretrain", "rotnet", "--data", shapes, "--steps", 2, *DATA, "--storage", "s3://absent/runs")
    done = run_forked(*arguments, env=env)
    assert done.returncode == 2 and "s3://absent/runs" in done.stderr and "Traceback" not in done.stderr
