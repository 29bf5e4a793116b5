"""The command line: quick help, clear refusals, exit codes."""

import subprocess
import sys

import pytest
from support.command import ROOT, complaint, environment

from cluster.head import BadAddress
from cluster.ray_jobs import UnknownJob
from cluster.retry import Preempted
from jobs.cli import VERBS, main
from jobs.study.folder import JobsFailed, Terminated
from kernels.cache import NoFolder
from ssl_core.errors import Diverged, OutOfMemory, StorageError, UserError


def test_help_imports_nothing_heavy():
    """`tilespin --help` must answer at once: it may not load torch, Ray, W&B or tyro."""
    command = [sys.executable, "-X", "importtime", "-m", "jobs.cli", "--help"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert not loaded & {"torch", "ray", "wandb", "tyro", "rich", "numpy", "timm"}
    assert all(verb in done.stdout for verb in VERBS)


@pytest.fixture
def here(monkeypatch, capsys):
    """The command in this process: (exit code, stdout, stderr). Starting one costs seconds, and there are many."""

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tilespin", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "120")
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_its_options(here, verb):
    code, said, _ = here(verb, "--help")
    assert code == 0
    assert f"usage: tilespin {verb}" in said
    assert verb in ("data", "export", "embed", "pack", "submit", "jobs", "doctor") or "--wandb" in said


def test_task_help_lists_defaults_and_meanings(here):
    _, said, _ = here("pretrain", "jigsaw", "--help")
    for part in ("--lr FLOAT", "(default: 0.6)", "--permutations INT", "size of the permutation set", "--workers"):
        assert part in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["studdy"], "did you mean study?"),
        (["pretrain", "rotnt"], "pretrain rotnt: did you mean rotnet?"),
        (["pretrain", "--seed", "1", "RotNet"], "did you mean rotnet?"),
        (["pretrain", "inpaint"], "pretrain inpaint: there is byol, colorize, context, "),
        (["pretrain"], "pretrain: expected one of byol, colorize, context, "),
        (["pretrain", "rotnet", "--stesp", "3"], "no option --stesp: did you mean --steps?"),
        (["pretrain", "rotnet", "--batch_sise=3"], "did you mean --batch?"),
        (["pretrain", "rotnet", "--foo"], "no option --foo: tilespin pretrain rotnet --help lists"),
        (["pretrain", "rotnet", "--permutations", "9"], "rotnet has no option --permutations: jigsaw, "),
        (["pretrain", "rotnet", "jigsaw"], "'jigsaw' is one word too many"),
        (["pretrain", "--", "rotnet"], "pretrain: '--' is one word too many"),
        (["pretrain", "rotnet", "--compile=maybe"], "--compile takes no value"),
        (["pretrain", "rotnet", "--batch"], "--batch: expected INT"),
        (["pretrain", "rotnet", "--batch", "few"], "--batch: expected INT; "),
        (["pretrain", "rotnet", "--loader", "dalli"], "--loader dalli: did you mean dali?"),
        (["pretrain", "rotnet", "--device", "gpu"], "--device gpu: there is auto, cpu, cuda"),
        (["pretrain", "rotnet", "--optimizer", "SGDD"], "did you mean sgd?"),
        (["pretrain", "rotnet", "--wandb", "ofline"], "did you mean offline?"),
        (["pretrain", "rotnet", "--data", "cifra10"], "no such folder: did you mean cifar10?"),
        (["pretrain", "rotnet", "--data", "~nobody-here/x"], "--data ~nobody-here/x: "),
        (["pretrain", "rotnet", "--storage", "~nobody-here/x"], "--storage ~nobody-here/x: "),
        (["pretrain", "rotnet", "--encoder", "resnt18"], "did you mean resnet18?"),
        (["pretrain", "multi", "--tasks", "rotnt", "jigsaw"], "did you mean rotnet?"),
        (["study", "demoo"], "study demoo: did you mean demo?"),
        (["evaluate"], "evaluate: expected STUDY"),
        (["evaluate", "--encodr", "x"], "no option --encodr: did you mean --encoder?"),
        (["export", "x", "--format", "onx"], "did you mean onnx?"),
        (["pack", "a"], "pack: expected DST"),
        (["jobs"], "jobs: expected one of list, logs, stop"),
        (["doctor", "--no-rai"], "did you mean --no-ray?"),
        (["pretrain", "rotnet", "--data", "/no/such/folder"], "/no/such/folder: no such folder"),
        (["pretrain", "rotnet", "--steps", "3", "--epochs", "1"], "choose one"),
        (["pretrain", "rotnet", "--steps", "0"], "--steps is 0, expected at least 1"),
        (["pretrain", "rotnet", "--batch", "0"], "--batch is 0"),
        (["pretrain", "rotnet", "--crop", "1.5"], "crop is 1.5"),
        (["pretrain", "rotnet", "--workers", "many"], "--workers many: expected 0 or more, or MIN:MAX"),
        (["pretrain", "rotnet", "--workers", "3:2"], "--workers 3:2"),
        (["pretrain", "rotnet", "--address", "10.0.0.1:6379"], "--workers 0 works in this process"),
        (["pretrain", "rotnet", "--checkpoint-every", "0"], "--checkpoint-every '0'"),
        (["pretrain", "rotnet", "--step-timeout", "20"], "expected a time such as 90s"),
        (["pretrain", "rotnet", "--keep-last", "0"], "--keep-last is 0"),
        (["pretrain", "rotnet", "--decode-threads", "0"], "--decode-threads is 0, expected at least 1"),
        (["pretrain", "rotnet", "--batch", "1", "--workers", "2"], "cannot be shared by 2 workers"),
        (["pretrain", "rotnet", "--encoder", "resnet999"], "encoder 'resnet999' cannot be built"),
        (["pretrain", "rotnet", "--encoder", "efficientnet_b0"], "at least 64 px"),
        (["pretrain", "rotnet", "--storage", "nostore://bucket/x"], "--storage nostore://bucket/x"),
        (["pretrain", "rotnet", "--name", "a/b"], "expected a plain folder name"),
        (["pretrain", "jigsaw", "--grid", "30"], "use larger images"),
        (["evaluate", "/no/such/study"], "no study here"),
        (["compare", "/no/such/study"], "no study here"),
        (["study", "demo", "--budget", "0.001"], "less than one step"),
        (["study", "demo", "--protocols", "linaer"], "did you mean linear? there is attentive, collapse, "),
        (["study", "demo", "--budget", "nan"], "expected GMACs above 0"),
        (["study", "demo", "--encoders", "raw-pixels"], "raw-pixels is a floor"),
        (["pretrain", "rotnet", "--encoder", "kmeans-16"], "kmeans-16 is a floor"),
        (["study", "demo", "--kmeans", "1"], "--kmeans is 1, expected 0, or 2 to 16,384 patches"),
        (["pretrain", "rotnet", "--epochs", "nan"], "expected more than 0"),
        (["pretrain", "rotnet", "--clip-grad-norm", "-1"], "--clip-grad-norm is -1"),
        (["pretrain", "rotnet", "--size", "-5"], "--size is -5"),
        (["submit"], "nothing to submit"),
        (["submit", "--adress", "x", "doctor"], "no option --adress: did you mean --address?"),
        (["submit", "pretrain", "rotnt"], "did you mean rotnet?"),
        (["submit", "studdy", "demo"], "did you mean study?"),
        (["submit", "study", "demo", "--protocols", "linaer"], "did you mean linear? there is attentive, collapse, "),
        (["submit", "--no-wait", "--retries", "1", "doctor"], "only who waits can retry"),
        (["submit", "--address", "ray://head:10001", "doctor"], "such as http://HEAD:8265"),
        (["data", "cifra10"], "tilespin: cifra10: no such folder: did you mean cifar10?"),
        (["data", "cifar10", "--sample", "-1"], "--sample is -1, expected 0 or more"),
        (["data", "cifar10", "--json", "."], "--json . is a folder: give a file in it"),
        (["jobs", "lisst"], "jobs lisst: did you mean list?"),
    ],
)
@pytest.mark.slow
def test_bad_input_is_one_clear_line(here, shapes, tmp_path, arguments, words):
    """Exit code 2, no traceback, and what would be right; nothing is trained."""
    if "--data" not in arguments and arguments[0] in ("pretrain", "study"):
        arguments = [*arguments, "--data", shapes]
        arguments += [] if "--size" in arguments else ["--size", "32"]
    if "--storage" not in arguments and arguments[0] in ("pretrain", "study"):
        arguments = [*arguments, "--storage", tmp_path]
    code, _, said = here(*arguments)
    assert code == 2
    assert words in said and said.count("\n") == 1
    assert not list(tmp_path.glob("*/pretrain/*/metrics.jsonl"))


def test_places_that_cannot_be_written(here, shapes, tmp_path):
    """A file where the study's folder should be; a study.json that somebody edited."""
    (tmp_path / "file").write_text("")
    arguments = ["pretrain", "rotnet", "--data", shapes, "--size", "32", "--steps", "1", "--wandb", "off"]
    code, _, said = here(*arguments, "--storage", tmp_path / "file")
    assert code == 2 and "cannot be written" in said
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "study.json").write_text("{")
    code, _, said = here("compare", tmp_path / "torn")
    assert code == 2 and "study.json is damaged" in said


@pytest.mark.parametrize("variables", [{"PATH": "/nowhere"}, {"CXX": "/nowhere/g++ -O1"}])
def test_a_compiler_that_is_missing_is_named_before_anything_runs(here, monkeypatch, shapes, tmp_path, variables):
    monkeypatch.delenv("CXX", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    arguments = ["--data", shapes, "--size", "32", "--device", "cpu", "--wandb", "off", "--storage", tmp_path]
    code, _, said = here("pretrain", "rotnet", "--compile", *arguments)
    assert code == 2 and said.count("\n") == 1 and not list(tmp_path.iterdir())
    assert variables.get("CXX", "g++").split()[0] in said and "install g++" in said and "leave --compile out" in said


@pytest.mark.slow
def test_where_nothing_can_be_written_but_the_storage(shapes, tmp_path):
    """A checkout that can only be read and a home that cannot be: training and tracking work, and one line says where
    caches go; W&B's own log stays out."""
    read_only = f'mount --bind {ROOT} {ROOT} && mount -o remount,ro,bind {ROOT} && exec "$@"'
    inside = ["unshare", "-m", "sh", "-c", read_only, "sh"]
    if subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("only root may mount")
    arguments = [
        "pretrain",
        "rotnet",
        "--data",
        shapes,
        "--size",
        32,
        "--batch",
        8,
        "--steps",
        1,
        "--storage",
        tmp_path,
    ]
    (tmp_path / "tmp").mkdir()
    env = {name: value for name, value in environment().items() if name != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [*inside, sys.executable, "-m", "jobs.cli", *map(str, arguments), "--name", "x"],
        env=env | {"HOME": "/proc/none", "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "tmp")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot be written") == 1 and f"caches go to {tmp_path}/tmp/tilespin-" in done.stderr
    assert "INFO" not in done.stderr and "Traceback" not in done.stderr and "warning" not in done.stderr
    assert list(tmp_path.glob("x/wandb/offline-run-*")) and list(
        tmp_path.glob("tmp/tilespin-*/.cache/tilespin/loops-*")
    )


def test_unlabeled_images_are_refused_before_training(here, photos, tmp_path):
    code, _, said = here("study", "demo", "--data", photos, "--storage", tmp_path)
    assert code == 2 and "labels" in said
    assert not list(tmp_path.glob("*/pretrain/*"))


@pytest.mark.slow
def test_bad_input_ends_the_process_with_two(tilespin):
    """The same, as the shell sees it."""
    done = tilespin("pretrain", "rotnet", "--data", "/no/such/folder", code=2)
    error = complaint(done.stderr)
    assert error.count("\n") == 1 and error.startswith("tilespin: --data /no/such/folder")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("wrong\ninput"), 2),
        (BadAddress("wrong\ninput"), 2),
        (NoFolder("wrong\ninput"), 2),
        (Diverged("wrong\ninput"), 1),
        (OutOfMemory("wrong\ninput"), 1),
        (StorageError("wrong\ninput"), 1),
        (UnknownJob("wrong\ninput"), 1),
        (JobsFailed("wrong\ninput"), 1),
        (Preempted("wrong\ninput"), 1),
    ],
)
def test_errors_are_one_line_and_their_exit_code(here, monkeypatch, error, code):
    def fail(arguments: list[str]) -> None:
        raise error

    monkeypatch.setattr("jobs.commands.doctor.main", fail)
    assert here("doctor") == (code, "", "tilespin: wrong input\n")


def test_signal_is_in_the_exit_code(here, monkeypatch):
    def stop(arguments: list[str]) -> None:
        raise Terminated(15)

    monkeypatch.setattr("jobs.commands.doctor.main", stop)
    code, _, said = here("doctor")
    assert code == 143 and said.count("\n") == 1


def test_error_of_another_kind_keeps_its_traceback(here, monkeypatch):
    def fail(arguments: list[str]) -> None:
        error = ValueError("a fault of the program")
        error.exit_code = 2  # as another library may have it
        raise error

    monkeypatch.setattr("jobs.commands.doctor.main", fail)
    with pytest.raises(ValueError, match="of the program"):
        here("doctor")


def test_doctor_checks_what_is_there(here):
    """Every kernel is run against its reference, and nothing that is installed fails."""
    _, said, _ = here("doctor", "--no-ray")
    assert all(name in said for name in ("rotate_all", "shuffle_tiles", "erase", "draw"))
    assert "failed" not in said
