"""Submitting, against a cluster that is a list: what is sent, how often, under which ids, and what comes back."""

import random
import re
from collections.abc import Callable

import pytest

import jobs.commands.submit as submit
from cluster import code_upload
from cluster.ray_jobs import RayJobInfo, UnknownJob
from jobs.commands.submit import checked_upload_size, split_arguments
from jobs.study.folder import commit
from jobs.submission.follow import dashboard_address
from jobs.submission.results import MARK, pack_files, unpack_files
from ssl_core.errors import UserError

URL = "http://head:8265"
LOST = -1


class Cluster:
    """Its jobs end with `codes`, one after the other; None: the job was stopped, LOST: the head was."""

    def __init__(self, *codes: int | None, here: bool = True):
        self.codes, self.here, self.sent, self.address = list(codes), here, [], URL

    def count_nodes(self) -> tuple[int, bool]:
        return (1 if self.here else 3), self.here

    def submit(self, id: str, command: str, *, cpus: float, env: dict, metadata: dict) -> None:
        self.sent.append((id, command, env, metadata))

    def follow(self, id: str, write: Callable) -> RayJobInfo:
        code = self.codes.pop(0)
        if code == LOST:
            raise UnknownJob(id)
        status = "STOPPED" if code is None else "FAILED" if code else "SUCCEEDED"
        said = f"Job entrypoint command failed with exit code {code}"
        return RayJobInfo(id, status, self.sent[-1][1], said, {}, 1 if code is None else code, 100.0, 103.0)

    def log(self, id: str) -> str:
        return "noise\n" + "\n".join(pack_files({"results.csv": b"numbers", "report.html": b"page"})) + "\nmore\n"


@pytest.fixture
def submitted(monkeypatch, tmp_path):
    """Runs `tilespin submit` against such a cluster -> (exit code, the jobs that were sent)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)

    def run(cluster: Cluster, *arguments) -> tuple[int, list]:
        monkeypatch.setattr(submit, "RayJobsClient", lambda address: cluster)
        with pytest.raises(SystemExit) as stop:
            submit.main(["--address", URL, *map(str, arguments)])
        return stop.value.code, cluster.sent

    return run


def test_failed_job_is_sent_again_under_a_new_id(submitted, capsys):
    code, sent = submitted(Cluster(1, LOST, 137, 0), "--retries", 3, "pretrain", "rotnet", "--name", "my study")
    assert code == 0 and len({command for _, command, *_ in sent}) == 1
    first, *others = (id for id, *_ in sent)
    assert re.fullmatch(r"my-study-\d{8}-\d{6}", first) and others == [f"{first}-{n}" for n in (1, 2, 3)]
    assert "exit code 137" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("codes", "retries", "code"), [((1, 1), 1, 1), ((2,), 5, 2), ((None,), 5, 1), ((127,), 0, 127)]
)
def test_when_it_is_not_sent_again(submitted, codes, retries, code):
    """No attempts left; input that stays wrong; a job that somebody stopped."""
    cluster = Cluster(*codes)
    assert submitted(cluster, "--retries", retries, "doctor")[0] == code and not cluster.codes


def test_job_is_told_nothing_secret(submitted, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "hidden")
    _, ((_, command, env, metadata),) = submitted(Cluster(0), "doctor")
    assert "hidden" not in f"{command} {env} {metadata}" and set(env) <= {"COLUMNS", "TILESPIN_COMMIT"}


def test_commit_of_the_code_is_told(monkeypatch):
    """A cluster has the files without their history."""
    monkeypatch.setenv("TILESPIN_COMMIT", "0123456789ab+")
    assert commit() == "0123456789ab+"


@pytest.mark.slow
def test_not_waiting_says_how_to_follow(submitted, capsys):
    code, ((id, *_),) = submitted(Cluster(), "--no-wait", "study", "demo")
    assert code == 0 and f"tilespin jobs logs {id} --address {URL}" in capsys.readouterr().err


@pytest.mark.slow
def test_results_are_brought_home_from_afar(submitted, tmp_path, capsys):
    """From another machine, or a store, by a second job; from this machine they are only named."""
    _, sent = submitted(Cluster(0, 0, here=False), "--python", "/opt/py", "study", "demo", "--storage", "/mnt/a b")
    assert sent[1][1] == "/opt/py -m jobs.submission.results '/mnt/a b/demo'" and sent[1][0] == f"{sent[0][0]}-results"
    assert (tmp_path / "demo/results.csv").read_bytes() == b"numbers"
    _, sent = submitted(Cluster(0, 1), "compare", "s3://bucket/runs/demo")
    assert sent[1][1].endswith("-m jobs.submission.results s3://bucket/runs/demo")
    assert "could not be fetched from s3://bucket/runs/demo" in capsys.readouterr().err
    assert len(submitted(Cluster(0), "study", "demo")[1]) == 1
    assert len(submitted(Cluster(0, here=False), "pretrain", "rotnet", "--storage", "/mnt")[1]) == 1


def test_packed_results_survive_a_log():
    files = {"results.csv": b"a,b\n" * 1000, "report.html": random.Random(0).randbytes(50_000)}
    lines = pack_files(files)
    assert len(lines) > 10 and max(map(len, lines)) < 10_000
    assert unpack_files("x\n" + "\nx\n".join(lines) + "\nx\n") == files
    for log in ("", "x\n", "\n".join(lines[:-1]), "\n".join(lines).replace(f"{MARK}", f"{MARK}AAAA", 1)):
        with pytest.raises(ValueError, match="no results, or damaged"):
            unpack_files(log)


def test_options_end_where_the_verb_begins():
    words = ["--address", "study", "--no-wait", "--python=pack", "--retries", "2", "study", "demo", "--workers", "2"]
    assert split_arguments(words) == (words[:6], words[6:])
    assert split_arguments(["--dry-run", "doctor"]) == (["--dry-run"], ["doctor"])
    assert split_arguments(["--help"]) == (["--help"], [])
    with pytest.raises(UserError, match="before the verb"):
        split_arguments(["study", "demo", "--address=http://x"])


def test_dashboards_address(monkeypatch):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://theirs:8265")
    assert dashboard_address(None) == "http://theirs:8265" and dashboard_address("mine:8265") == "http://mine:8265"
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS")
    refused = {None: "which cluster", "ray://x:10001": "ray://x", "http://a:hidden@b": "without a password"}
    for told, said in refused.items():
        with pytest.raises(UserError, match=said) as error:
            dashboard_address(told)
        assert "hidden" not in str(error.value)


def test_code_beyond_rays_limit_is_refused(monkeypatch, tmp_path):
    assert 100_000 < checked_upload_size() < 5_000_000
    (tmp_path / "jobs").mkdir()
    with open(tmp_path / "jobs/large.bin", "wb") as file:
        file.truncate(code_upload.MAX_BYTES)
    monkeypatch.setattr(code_upload, "ROOT", tmp_path)
    with pytest.raises(UserError, match=r"537 MB.*the largest is .*large\.bin"):
        checked_upload_size()


def test_limit_is_rays():
    from ray._private.runtime_env.packaging import GCS_STORAGE_MAX_SIZE

    assert code_upload.MAX_BYTES == GCS_STORAGE_MAX_SIZE


def test_cluster_that_does_not_answer():
    from cluster.head import ClusterError
    from cluster.ray_jobs import RayJobsClient

    with pytest.raises(ClusterError, match=r"no Ray cluster answers at http://127\.0\.0\.1:1$"):
        RayJobsClient("http://127.0.0.1:1/")
