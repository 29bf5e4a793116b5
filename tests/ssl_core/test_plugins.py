"""What can be plugged in is found in packages and files, under its name, or refused in one clear line."""

import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command import ROOT, environment
from support.plugin_package import PROTOCOL, SOURCE, TASK, forget_files, plugged_in, write_package, write_striped

import ssl_core.plugin_files as plugin_files
import ssl_core.plugins as plugins
from ssl_core.data.data_source import data_sources, dataset_names
from ssl_core.data.dataset import open_source
from ssl_core.errors import UserError
from ssl_core.evaluation.protocol import protocols
from ssl_core.plugins import source_digest
from ssl_core.task import plugin_digests, task_name, tasks

FINDERS = {"tilespin.tasks": tasks, "tilespin.protocols": protocols, "tilespin.sources": data_sources}
TURNED = "from ssl_core.tasks.rotnet import RotNet\nclass Turned(RotNet): pass"
NAMED = SOURCE.replace("    def opens", "    name = 'cifar10'\n\n    def opens")


@pytest.fixture
def site(tmp_path) -> Iterator[Path]:
    """A folder of installed packages."""
    folder = tmp_path / "site"
    folder.mkdir()
    with plugged_in(folder):
        yield folder


@pytest.fixture
def stripes(site) -> Path:
    write_striped(site)
    return site


def add(folder: Path, name: str, source: str) -> str:
    (folder / name).write_text(source)
    return str(folder / name)


def test_a_package_adds_one_of_each_kind(stripes):
    assert list(tasks())[-1] == "flip" and "rotnet" in tasks()
    assert task_name(tasks()["flip"].Config()) == "flip"
    assert protocols()["norm"].headline == "norm" and "knn" in protocols()
    assert len(open_source("stripes://10").train) == 10
    assert dataset_names() == ["cifar10", "fashion-mnist"]


def test_without_the_package_there_is_none(site):
    assert not {"flip", "norm", "stripes"} & {*tasks(), *protocols(), *data_sources()}
    with pytest.raises(UserError, match="stripes"):
        open_source("stripes://11")


def test_a_file_may_have_one_of_each_kind(site, tmp_path):
    plugin_files.add_files([add(tmp_path, "mine.py", TASK + PROTOCOL + SOURCE)])
    assert tasks()["mine"].__name__ == "Flip" and protocols()["mine"].version == 1 and "mine" in data_sources()
    assert tasks()["mine"].__module__ == "ssl_core.plugin_files.mine"


def test_its_folder_is_not_searched(site, tmp_path):
    """Neither for modules that would take the place of others, nor for helpers, whose changes no digest would show."""
    add(tmp_path, "json.py", "raise RuntimeError")
    plugin_files.add_files([add(tmp_path, "mine.py", "import json\n" + TASK)])
    assert "mine" in tasks() and str(tmp_path) not in sys.path
    plugin_files.add_files([add(tmp_path, "helped.py", "from ssl_core.plugin_files import json\n" + TASK)])
    with pytest.raises(UserError, match=r"helped\.py: it cannot be imported: ImportError"):
        tasks()


@pytest.mark.slow
def test_another_process_unpickles_a_config(site, tmp_path):
    """Of which it has only the environment and the bytes, before anything asks for tasks."""
    plugin_files.add_files([add(tmp_path, "mine.py", TASK)])
    data = pickle.dumps(tasks()["mine"].Config(eagerness=0.25))
    code = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read()).eagerness)"
    env = environment() | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], input=data, env=env, capture_output=True, cwd="/")
    assert done.stdout == b"0.25\n", done.stderr


@pytest.mark.slow
def test_a_changed_file_is_refused_by_other_processes(site, tmp_path):
    path = add(tmp_path, "mine.py", TASK)
    plugin_files.add_files([path])
    tasks()
    plugin_files.fix_digests()
    code = "import sys; from ssl_core.task import tasks; print(*tasks())"
    run = dict(env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, cwd="/")
    assert "mine" in subprocess.run([sys.executable, "-c", code], **run).stdout
    add(tmp_path, "mine.py", TASK + "\n")
    assert (
        "mine.py was changed after the command had begun" in subprocess.run([sys.executable, "-c", code], **run).stderr
    )


def test_the_digest_is_of_a_plugins_source(stripes, tmp_path):
    assert {source_digest(kind) for kind in (tasks()["rotnet"], type(protocols()["knn"]))} == {None}
    before = source_digest(tasks()["flip"])
    assert len(before) == 12 and source_digest(type(protocols()["norm"])) == before
    (stripes / "striped" / "helper.py").write_text("")
    plugins._package_digest.cache_clear()
    assert source_digest(tasks()["flip"]) != before
    plugin_files.add_files([add(tmp_path, "mine.py", TASK)])
    digest = source_digest(tasks()["mine"])
    both = tasks()["multi"].Config(tasks=("rotnet", "mine"))
    assert plugin_digests(both) == {"mine": digest} and not plugin_digests(tasks()["rotnet"].Config())
    forget_files()
    add(tmp_path, "mine.py", TASK + "\n")  # at once, and of another size or not: no compiled copy is used
    assert source_digest(tasks()["mine"]) not in (digest, None)


@pytest.mark.parametrize(
    ("group", "name", "value", "source", "message"),
    [
        ("tasks", "flip", "m:Flip", "raise KeyError('x')", "task flip of {}: it cannot be imported: KeyError: 'x'"),
        ("tasks", "flip", "n:Flip", "", "task flip of {}: it cannot be imported: ModuleNotFoundError: "),
        ("tasks", "flip", "m:Flip", "", "task flip of {}: it cannot be imported: AttributeError: "),
        ("tasks", "flip", "m:x", "x = 1", "task flip of {}: it is no subclass of ssl_core.task.Task"),
        ("tasks", "norm", "m:Norm", PROTOCOL, "task norm of {}: it is no subclass of ssl_core.task.Task"),
        ("tasks", "rotnet", "m:Flip", TASK, "two tasks are called rotnet: a built-in one, and that of {}"),
        ("tasks", "my-task", "m:Flip", TASK, "task my-task of {}: expected a name of letters, digits and _"),
        ("tasks", "flip", "m:Flip", TASK.replace("def loss", "def lose"), "task flip of {}: it lacks loss"),
        ("tasks", "turned", "m:Turned", TURNED, "task turned of {}: it needs a Config of its own"),
        ("protocols", "knn", "m:Norm", PROTOCOL, "two protocols are called knn: a built-in one, and that of {}"),
        ("protocols", "norm", "m:Norm", PROTOCOL.replace("version = 1", ""), "protocol norm of {}: it lacks version"),
        ("protocols", "norm", "m:Norm", PROTOCOL.replace('"features"', '"pixels"'), "norm of {}: it has on = 'pixels'"),
        (
            "protocols",
            "norm",
            "m:Norm",
            PROTOCOL.replace("@dataclass", "# "),
            "{}: it needs a Config that is a dataclass",
        ),
        ("sources", "tars", "m:Stripes", SOURCE, "two data sources are called tars: a built-in one, and that of {}"),
        ("sources", "stripes", "m:Stripes", SOURCE.replace("def load", "def lode"), "stripes of {}: it lacks load"),
        ("sources", "mine", "m:Stripes", NAMED, "data sources cifar10 and mine both have a dataset called 'cifar10'"),
    ],
)
def test_a_package_that_cannot_be_used(site, group, name, value, source, message):
    write_package(site, "other", {"m": source}, {f"tilespin.{group}": {name: f"other.{value}"}})
    with pytest.raises(UserError, match=re.escape(message.format(f"package other 1.0 (other.{value})"))) as caught:
        FINDERS[f"tilespin.{group}"]()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("mine.py", "def", "plug-in mine of the file {}: it cannot be imported: SyntaxError: "),
        ("rotnet.py", TASK, "two tasks are called rotnet: a built-in one, and that of the file {}"),
        ("mine.py", TASK.replace("def visualize", "def show"), "task mine of the file {}: it lacks visualize"),
        ("mine.py", TASK + "class Second(Flip): pass", "the file {} has several tasks, Flip and Second: expected one"),
        ("my-task.py", TASK, "--plugin {}: expected a name of letters"),
        ("mine.txt", TASK, "--plugin {}: expected a name of letters"),
    ],
)
def test_a_file_that_cannot_be_used(site, tmp_path, name, source, message):
    with pytest.raises(UserError, match=re.escape(message.format(tmp_path / name))):
        plugin_files.add_files([add(tmp_path, name, source)])
        tasks()


def test_files_of_one_name_and_of_none(site, tmp_path):
    (tmp_path / "a").mkdir()
    one, two = add(tmp_path, "mine.py", TASK), add(tmp_path / "a", "mine.py", TASK)
    plugin_files.add_files([one, one])
    with pytest.raises(UserError, match=r"a/mine\.py: .*/mine\.py has the same name"):
        plugin_files.add_files([two])


def test_a_file_that_is_not_there(site, tmp_path):
    with pytest.raises(UserError, match=r"--plugin .*gone\.py: there is no such file"):
        plugin_files.add_files([str(tmp_path / "gone.py")])


def test_a_path_that_would_be_taken_for_two(site, tmp_path):
    with pytest.raises(UserError, match=r"--plugin .*a:b\.py: expected a path without :"):
        plugin_files.add_files([add(tmp_path, "a:b.py", TASK)])


def test_two_sources_that_open_the_same(stripes, tmp_path):
    plugin_files.add_files([add(tmp_path, "mine.py", SOURCE)])
    with pytest.raises(UserError, match="stripes://12: several data sources open it: stripes, mine"):
        open_source("stripes://12")


def test_a_source_cannot_take_what_a_built_in_one_opens(site, tmp_path):
    plugin_files.add_files([add(tmp_path, "mine.py", SOURCE.replace('startswith("stripes://")', 'endswith("r10")'))])
    with pytest.raises(UserError, match="cifar10: several data sources open it: cifar10, mine"):
        open_source("cifar10", 13)
