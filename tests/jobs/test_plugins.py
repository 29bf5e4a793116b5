"""Plug-ins of a package and of a file, from their options to results.csv, beside what is built in."""

import csv
import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from support.command import ROOT
from support.plugin_package import PROTOCOL, TASK, forget_files, plugged_in, write_striped

from jobs.cli import VERBS
from ssl_core.errors import UserError

pytestmark = pytest.mark.slow

SHORT = "--data stripes://60 --steps 4 --batch 8 --name mine --wandb off --decode-threads 1"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder with mirror.py, where a package is installed that has the task flip, `norm` and `stripes`."""
    write_striped(tmp_path / "site")
    (tmp_path / "mirror.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    with plugged_in(tmp_path / "site"):
        yield tmp_path


def run(line: str) -> None:
    """A command line, in this process, which then forgets the files of its plug-ins, as another one would begin."""
    verb, *arguments = line.split()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILESPIN_PLUGINS", "")
        import_module(VERBS[verb][0]).main(arguments)
    forget_files()


def runs(folder: Path) -> dict[str, Path]:
    """The folders of finished runs by their tasks."""
    found = folder.glob("runs/mine/pretrain/*/encoder.json")
    return {path.parent.name.rpartition("-")[0]: path.parent for path in found}


def check_results(folder: Path, tasks: set[str]) -> None:
    assert {*runs(folder)} == tasks
    rows = list(csv.DictReader((folder / "runs/mine/results.csv").open()))
    found = {(row["task"], row["protocol"], row["metric"]) for row in rows if row["pretrain_run"]}
    wanted = {(task, *of) for task in tasks for of in (("knn", "top1"), ("norm", "norm"))}
    assert wanted <= found and {row["dataset"] for row in rows} == {"stripes"}


def test_plug_ins_take_part_with_what_is_built_in(here):
    run(f"pretrain rotnet {SHORT}")
    run(f"pretrain flip {SHORT}")
    run(f"pretrain mirror --plugin mirror.py {SHORT}")
    before = runs(here)["mirror"].stat().st_mtime_ns
    run(f"pretrain mirror {SHORT} --plugin={here}/mirror.py")  # it is finished
    assert runs(here)["mirror"].stat().st_mtime_ns == before
    run("evaluate runs/mine --protocols knn norm --wandb off")
    check_results(here, {"rotnet", "flip", "mirror"})


@pytest.mark.ray
@pytest.mark.network
def test_in_processes_of_ray(here, tilespin, monkeypatch):
    """Which get the options of a plug-in's task pickled, and look for its module before they know of tasks."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{here / 'site'}")
    both = '[[tasks]]\nname = "multi"\ntasks = ["flip", "mirror"]\nbatch = 8\n[evaluation]\nprotocols = ["knn", "norm"]'
    (here / "both.toml").write_text(f"steps = [4]\nsupervised = false\n{both}\n")
    options = "--data stripes://60 --name mine --plugin mirror.py --workers 2 --wandb off --decode-threads 1"
    tilespin("study", "both.toml", *options.split(), cwd=here)
    check_results(here, {"multi"})


def test_a_changed_file_is_another_recipe(here, capfd):
    run(f"pretrain mirror --plugin mirror.py {SHORT}")
    first = runs(here)["mirror"]
    (here / "mirror.py").write_text(TASK.replace("still[:, None]", "still[:, None].clone()"))
    run(f"pretrain mirror --plugin mirror.py {SHORT}")
    assert f"beside {first.name}: the source of its plug-in is another" in capfd.readouterr().err
    names = {path.parent.name for path in here.glob("runs/mine/pretrain/*/encoder.json")}
    assert len(names) == 2 and first.name in names
    plugins = [json.loads(path.read_text())["plugin"] for path in here.glob("runs/mine/pretrain/*/config.json")]
    assert len({*plugins}) == 2 and all(one.startswith("mirror:") for one in plugins)
    run(f"pretrain multi --tasks rotnet mirror --plugin mirror.py {SHORT}")
    (config,) = here.glob("runs/mine/pretrain/multi-*/config.json")
    assert json.loads(config.read_text())["plugin"] in plugins


def test_help_lists_the_task_and_the_option(here, capsys):
    for line, shown in {
        "pretrain --plugin mirror.py --help": ("mirror", "flip", "--plugin FILE"),
        "pretrain mirror --plugin mirror.py --help": ("--eagerness", "--plugin FILE"),
        **{f"{verb} --help": ("--plugin FILE",) for verb in ("study", "sweep", "evaluate", "compare", "pack")},
    }.items():
        with pytest.raises(SystemExit):
            run(line)
        forget_files()
        said = capsys.readouterr().out
        assert all(word in said for word in shown), line


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"pretrain mirror {SHORT}", "pretrain mirror: there is "),
        ("pretrain mirror --plugin gone.py", "gone.py: there is no such file"),
        ("compare x --plugin empty.py", "empty.py: it has no subclass of Task, Protocol or DataSource"),
        ("sweep --plugin=rotnet.py", "two tasks are called rotnet: a built-in one, and that of the file"),
        ("pretrain rotnet --plugin", "--plugin"),
        ("doctor --plugin mirror.py", "no option --plugin"),
    ],
)
def test_one_line_for_what_cannot_be_used(here, line, message):
    (here / "empty.py").write_text("")
    (here / "rotnet.py").write_text(TASK)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        run(line)
    assert "\n" not in str(caught.value)
    forget_files()


def test_a_protocol_that_is_gone(here):
    """A study that was evaluated with a plug-in which is not given any more."""
    (here / "size.py").write_text(PROTOCOL)
    run(f"pretrain rotnet {SHORT}")
    run("evaluate runs/mine --protocols knn size --plugin size.py --wandb off")
    assert ",size,norm," in (here / "runs/mine/results.csv").read_text()
    with pytest.raises(UserError, match=r"--protocols size: there is attentive, collapse.* and those of plug-ins"):
        run("compare runs/mine --wandb off")
    run("compare runs/mine --plugin size.py --wandb off")
