"""A whole study on real Ray workers with offline W&B: what it leaves, and that nothing is done twice."""

import csv
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from support.command import ROOT, complaint, environment, run_forked

import ssl_core.encoders.build as encoders
from jobs.commands.compare import main as compare
from jobs.config.evaluation import Evaluation
from jobs.evaluation.encoders import with_baselines
from jobs.evaluation.external import list_encoders
from jobs.evaluation.records import current_records, unpack_bits
from jobs.study.folder import Study
from ssl_core.storage.records import EncoderRecord, EvaluationRecord

pytestmark = [pytest.mark.ray, pytest.mark.network]

TASKS = {"context", "jigsaw", "rotnet", "supervised"}
FLOORS = {"raw-pixels", "random-init", "random-init-per-image"}
PROTOCOLS = ("linear", "knn", "retrieval")  # an accuracy of features, another, and a picture of the encoder's


def arguments(shapes: Path, storage: Path) -> list:
    options = ["--size", 32, "--budget", 10, "--decode-threads", 1, "--protocols", *PROTOCOLS]
    return ["study", "demo", "--data", shapes, *options, "--storage", storage]


@pytest.fixture(scope="module")
def study(tilespin, shapes, tmp_path_factory) -> tuple[Path, str]:
    """The folder of a finished study, and what was printed."""
    storage = tmp_path_factory.mktemp("runs")
    done = tilespin(*arguments(shapes, storage), timeout=900)
    return storage / "demo", done.stdout + done.stderr


def results(folder: Path) -> list[dict]:
    with open(folder / "results.csv") as file:
        return list(csv.DictReader(file))


def records(folder: Path) -> dict[Path, EvaluationRecord]:
    return {path: EvaluationRecord.read(path) for path in folder.glob("evaluate/*/*.json")}


def stamps(folder: Path) -> dict[Path, int]:
    kept = [*folder.glob("evaluate/*/*.json"), *folder.glob("pretrain/*/*"), folder / "results.csv"]
    return {path: path.stat().st_mtime_ns for path in kept if path.is_file()}


def test_everything_was_judged(study):
    """Each task, floor and the ceiling under each protocol; the numbers are those of the images counted."""
    folder, _ = study
    top1 = {(r["task"], r["protocol"]): r for r in results(folder) if r["metric"] == "top1"}
    assert set(top1) == {(task, protocol) for task in TASKS | FLOORS for protocol in ("linear", "knn")}
    for row in top1.values():
        assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
    for record in (record for record in records(folder).values() if record.protocol.name != "retrieval"):
        assert unpack_bits(record).mean() == pytest.approx(record.numbers["top1"], abs=1e-9)
        per_image = not record.encoder.run and record.encoder.normalization == "image"
        row = top1[record.encoder.task + "-per-image" * per_image, record.protocol.name]
        assert float(row["value"]) == record.numbers["top1"]


def test_pictures_lie_beside_their_cells(study):
    """A row for each of 8 test images: itself and its 8 neighbors."""
    folder, _ = study
    sheets = {path.with_suffix(".json") for path in folder.glob("evaluate/*/*.png")}
    assert sheets == {path for path, record in records(folder).items() if record.protocol.name == "retrieval"}
    for path in sheets:
        assert Image.open(path.with_suffix(".png")).size == (9 * 70 + 14, 8 * 70)
        assert 0 < records(folder)[path].numbers["precision@8"] <= 1


def test_budgets_are_equal(study):
    """Every task spends the budget of 10 GMACs, to half a step's worth."""
    spent = [EncoderRecord.read(path).training for path in study[0].glob("pretrain/*/encoder.json")]
    assert len(spent) == len(TASKS)
    for run in spent:
        assert abs(run.macs - 10e9) <= run.macs / run.steps / 2


def test_table_and_report(study):
    folder, said = study
    for name in TASKS | FLOORS:
        assert said.count(f"\n {name} ") == 2, "in the accuracies and the diagnostics"
    assert re.search(r"retrieval.*\n.*precision.*\n.*@8 ↑", said), "a header of three lines"
    assert said.count("images are held out as test data") == 1
    assert "wandb sync" in said and "report.html" in said
    assert not re.search(r"\braylet\b|Started a local Ray|wandb: (?!sync)", said), said
    page = (folder / "report.html").read_text()
    assert page.count('<div class="chart">') == 8
    assert page.count("data:image/png;base64,") == len(TASKS) + len(TASKS | FLOORS)
    assert not re.search(r"""(?:src|href)=["']?https?:""", page), "the report must work offline"


def test_second_run_recomputes_nothing(study, tilespin, shapes):
    folder, said = study
    before = stamps(folder)
    again = tilespin(*arguments(shapes, folder.parent))
    assert stamps(folder) == before
    table = said[said.index(": test images, frozen encoder") :].split("report:")[0]
    assert table in again.stdout
    assert "trained" not in again.stderr and "evaluated" not in again.stderr


def test_evaluate_computes_only_what_is_missing(study, tilespin, tmp_path):
    """One cell deleted, one cell done: the others keep their time stamps, and the number comes out the same."""
    folder = Path(shutil.copytree(study[0], tmp_path / "demo"))
    path, record = next(
        (path, one)
        for path, one in records(folder).items()
        if (one.encoder.task, one.protocol.name) == ("rotnet", "linear")
    )
    before = stamps(folder)
    path.unlink()
    done = tilespin("evaluate", folder, "--wandb", "off", "--decode-threads", 1)
    assert done.stderr.count("evaluated") == 1
    again = EvaluationRecord.read(path)
    assert replace(again, seconds=record.seconds, finished=record.finished) == record
    assert {p: t for p, t in stamps(folder).items() if p != path} == {p: t for p, t in before.items() if p != path}


def test_failing_cells_do_not_hold_up_others(study, tilespin, tmp_path):
    """A damaged encoder: exit code 1, its traceback kept, the other encoders judged; mended, the rest is done."""
    folder = Path(shutil.copytree(study[0], tmp_path / "demo"))
    shutil.rmtree(folder / "evaluate")
    (weights,) = folder.glob("pretrain/jigsaw-*/encoder.safetensors")
    good = weights.read_bytes()
    weights.write_bytes(good[:100])
    done = tilespin("evaluate", folder, "--wandb", "off", "--decode-threads", 1, code=1)
    assert "failed" in done.stderr and "not run" in done.stderr and "Traceback" not in done.stderr
    assert any("Traceback" in path.read_text() for path in folder.glob("failures/*jigsaw*.txt"))
    evaluated = {record.encoder.task for record in records(folder).values()}
    assert evaluated == (TASKS | {"raw-pixels", "random-init"}) - {"jigsaw"}
    weights.write_bytes(good)
    tilespin("evaluate", folder, "--wandb", "off", "--decode-threads", 1)
    assert len(records(folder)) == len(PROTOCOLS) * len(TASKS | FLOORS)


def segments(folder: Path) -> dict[str, list[dict]]:
    """What the offline files of each W&B run hold, the oldest first, read by W&B's own reader."""
    found: dict[str, list[dict]] = {}
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--summary", "--json", file]
        read = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
        run = json.loads(read.stdout)
        found.setdefault(run["run_id"], []).append(run)
    return found


def test_wandb_has_one_run_for_each_encoder(study):
    """A training's run has its curves and then its results; a floor has a run of its own; and one is the comparison."""
    folder, _ = study
    token = json.loads((folder / "study.json").read_text())["token"]
    found = segments(folder)
    assert len(found) == len(TASKS | FLOORS) + 1 and all(id.endswith(token) for id in found)
    assert all(run["state"] == "finished" and run["project"] == "tilespin" for of in found.values() for run in of)
    compare = found.pop(f"compare-{token}")
    assert "rotnet/linear" in compare[0]["summary"] and "comparison" in compare[0]["summary"]
    trained = {of[0]["config"]["task"]: of for of in found.values() if "options" in of[0]["config"]}
    assert trained.keys() == TASKS
    for first, second in trained.values():
        assert first["summary"]["train/step"] == first["config"]["steps"] and "samples" in first["summary"]
        assert first["config"] == second["config"]
    assert sorted(of[0]["config"]["task"] for of in found.values()) == sorted(
        [*TASKS, "random-init", "random-init", "raw-pixels"]
    )
    top1 = {(r["pretrain_run"], r["protocol"]): float(r["value"]) for r in results(folder) if r["metric"] == "top1"}
    for id, of in found.items():
        values = [key for run in of for key in run["summary"] if key.startswith("eval/")]
        assert len(values) == len(set(values)), "each value is there once"
        assert any(key.endswith("/retrieval") for key in values), "a picture"
        run = id.removesuffix(f"-{token}")
        if (run, "knn") in top1:
            (value,) = [v for key, v in of[-1]["summary"].items() if key.endswith("/knn/top1")]
            assert value == pytest.approx(top1[run, "knn"])


def test_stale_report_is_made_again(study, tilespin, tmp_path):
    """A kill between the report and results.csv, which is written last: the next comparison makes both."""
    folder = Path(shutil.copytree(study[0], tmp_path / "demo"))
    (folder / "results.csv").unlink()
    (folder / "report.html").write_text("old")
    tilespin("compare", folder, "--wandb", "off")
    assert (folder / "results.csv").read_text() == (study[0] / "results.csv").read_text()
    assert "<svg" in (folder / "report.html").read_text()


def test_a_copy_is_read_where_its_images_are_not(study, shapes, tmp_path, monkeypatch, capsys):
    """Records say themselves what they are of: no dataset is opened and no network is built for the same table."""
    folder = Path(shutil.copytree(study[0], tmp_path / "demo"))
    for path in (folder / "study.json", *folder.glob("pretrain/*/*.json"), *folder.glob("evaluate/*/*.json")):
        path.write_text(path.read_text().replace(str(shapes), "/gone/shapes"))
    (folder / "results.csv").unlink()
    (folder / "report.html").unlink()
    monkeypatch.setattr(encoders, "build", None)
    compare([str(folder), "--wandb", "off"])
    assert (folder / "results.csv").read_text() == (study[0] / "results.csv").read_text()
    assert (folder / "report.html").read_text().count("<svg") == (study[0] / "report.html").read_text().count("<svg")
    table = capsys.readouterr().out.split("\nreport:")[0]
    assert table and table in study[1]


def test_many_records_are_read_at_once(study, tmp_path):
    """Two thousand records of other seeds lie beside those of the evaluation, and none of them is taken for one."""
    folder = Path(shutil.copytree(study[0], tmp_path / "demo"))
    (path, record), *_ = records(folder).items()
    for seed in range(1, 2001):
        other = replace(record, protocol=replace(record.protocol, probe_seed=seed))
        other.write(path.with_name(f"{path.stem}-{seed}.json"))
    kept = Study(folder)
    everyone = with_baselines(list_encoders(kept))
    found = current_records(kept, everyone, Evaluation.of_study(kept))
    assert sum(map(len, found.values())) == len(records(study[0]))


def test_studies_are_compared_with_each_other(study, tilespin, tmp_path):
    """The study and a copy of it: their rows side by side, in a folder of its own, and neither is changed."""
    folder, _ = study
    for name in ("one", "other"):
        shutil.copytree(folder, tmp_path / name)
    before = stamps(tmp_path / "one")
    said = tilespin("compare", tmp_path / "one", tmp_path / "other", "--wandb", "off").stdout
    assert stamps(tmp_path / "one") == before and (tmp_path / "comparison" / "report.html").exists()
    alone, both = results(folder), results(tmp_path / "comparison")
    floors = {f"{name}/{floor}" for name in ("one", "other") for floor in FLOORS}
    assert {row["task"] for row in both} == TASKS | floors and len(both) > 2 * len(alone)
    values = {(row["task"], row["protocol"]): row["value"] for row in alone if row["metric"] == "top1"}
    for row in both:
        if row["metric"] == "top1":
            assert row["value"] == values[row["task"].rpartition("/")[2], row["protocol"]]
    for task in TASKS - {"supervised"}:
        (same,) = (
            row
            for row in both
            if row["metric"] in (f"top1/over/one/{task}", f"top1/over/other/{task}")
            and row["task"] == task
            and row["protocol"] == "linear"
        )
        assert float(same["value"]) == float(same["low"]) == 0
    assert "one/rotnet" in said and "other/rotnet" in said
    error = complaint(tilespin("compare", tmp_path / "one", tmp_path / "other", "--name", "one", code=2).stderr)
    assert "is a study" in error and error.count("\n") == 1


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Debian's chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_the_report_opens_without_a_network(study, tmp_path, width):
    """In a browser that may reach nothing, with nothing to complain of, and with pictures in it."""
    picture = tmp_path / "page.png"
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--hide-scrollbars",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-quic",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--enable-logging=stderr",
        f"--window-size={width},4000",
        f"--user-data-dir={tmp_path / 'user'}",
        f"--screenshot={picture}",
        (study[0] / "report.html").as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert ":CONSOLE" not in done.stderr, done.stderr
    image = Image.open(picture)
    assert image.width == width and len(set(image.convert("L").resize((20, 200)).tobytes())) > 20


def test_online_the_comparison_is_a_report_in_wandb(study, tmp_path):
    from support.wandb_server import Server

    folder = Path(shutil.copytree(study[0], tmp_path / "demo"))
    (folder / "results.csv").unlink()
    with Server() as server:
        done = run_forked("compare", folder, "--wandb", "online", env=environment() | server.environment())
        assert done.returncode == 0 and f"W&B report: {server.url}" in done.stdout, done.stdout + done.stderr
        (run,) = (run for run in server.runs.values() if run.about.get("jobType") == "compare")
    assert json.loads((folder / "study.json").read_text())["wandb_report"] in done.stdout
    assert 0 < run.summary["rotnet/linear"] < 1 and run.summary["pairs"]["nrows"] >= 3
