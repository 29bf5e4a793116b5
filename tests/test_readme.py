"""README and guide tell the truth: their commands run, their options exist, their files are there."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from support.command import ROOT
from support.plugin_package import PROTOCOL, SOURCE, TASK

import tilespin
from jobs.cli import VERBS, run_command

README = (ROOT / "README.md").read_text()
BLOCKS = [
    block
    for name in ("README.md", "docs/guide.md")
    for block in re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / name).read_text(), re.DOTALL | re.MULTILINE)
]
LINES = [line.split("#")[0].strip() for kind, block in BLOCKS if not kind for line in block.splitlines()]
COMMANDS = [line.removeprefix(".venv/bin/") for line in LINES if re.match(r"(\.venv/bin/)?tilespin ", line)]
SHORT = {
    "study": ["--budget", "4", "--num-labels", "600", "--protocols", "linear", "semantic_similarity"],
    "pretrain": ["--steps", "2"],
    "sweep": ["--budget", "4", "--size", "32", "--tasks", "rotnet", "--lr-factors", "1"],
}


@pytest.mark.ray
@pytest.mark.network
def test_commands_run_as_written(tilespin, cluster, shapes, tmp_path):
    """Each `tilespin …` line in order, in one place, made short; FOLDER is a folder of images, UNLABELED one without
    classes, PACKED a new one, EXPORTED and FEATURES.parquet new files, HEAD a cluster, ID what was submitted to it: the
    study that is there already; the files of plug-ins are the guide's."""
    places = {
        "FOLDER": str(shapes),
        "UNLABELED": str(shapes / "rings"),
        "PACKED": str(tmp_path / "packed"),
        "EXPORTED": str(tmp_path / "exported"),
        "FEATURES.parquet": str(tmp_path / "features.parquet"),
        "http://HEAD:8265": cluster.address,
    }
    for name, source in {"flip.py": TASK, "norm.py": PROTOCOL, "stripes.py": SOURCE}.items():
        (tmp_path / name).write_text(source)
        places[name] = str(tmp_path / name)
    assert {shlex.split(command)[1] for command in COMMANDS} == set(VERBS)
    for command in sorted(dict.fromkeys(COMMANDS), key=lambda c: list(VERBS).index(shlex.split(c)[1])):
        words = shlex.split(command)[1:]
        words = [places.get(word, word.replace("runs/", f"{tmp_path}/")) for word in words]
        for verb in set(SHORT).intersection(words):
            words += [*SHORT[verb], "--storage", str(tmp_path), "--wandb", "off"]
        if "submit" not in words and {"study", "pretrain"}.intersection(words):
            words += ["--workers", "0"]  # Ray takes half a minute, and other tests start it
        if "demo" in words:
            words += ["--tasks", "rotnet", "--no-supervised"]  # other tests train them all
        if "study" in words:
            words += ["--size", "32"] if "--data" in words else ["--data", str(shapes), "--size", "32"]
        said = cluster.run(*words) if cluster.address in words else tilespin(*words, timeout=900).stdout
        if "submit" in words:
            places["ID"] = re.search(r"submitted (\S+)", said)[1]


def test_python_is_python_and_names_what_there_is():
    """Each block compiles, and what it takes from the module tilespin is there."""
    blocks = [block for kind, block in BLOCKS if kind == "python"]
    assert blocks
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tilespin":
                assert hasattr(tilespin, node.attr), node.attr


def test_what_to_choose_is_written_as_commands_are(capsys):
    """Each of its lines parses; they are as those that the test above runs."""
    lines = re.findall(r"^tilespin (.*?)(?:#.*)?$", (ROOT / "docs/choose.md").read_text(), re.MULTILINE)
    assert len(lines) >= 3
    for line in lines:
        with pytest.raises(SystemExit, match=r"^0$"):
            run_command([*shlex.split(line), "--print-config"])
    assert "UNLABELED" in capsys.readouterr().out


def test_make_targets_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([\w-]+)", README)) <= targets


def test_options_exist(capsys):
    """Every --option in the README is one of some verb's."""
    verbs = (
        ["pretrain", "rotnet"],
        ["study", "demo"],
        ["sweep"],
        ["evaluate"],
        ["export"],
        ["embed"],
        ["pack"],
        ["submit"],
        ["data"],
    )
    for verb in verbs:
        with pytest.raises(SystemExit, match=r"^0$"):
            run_command([*verb, "--help"])
    said = capsys.readouterr().out
    named = set(re.findall(r"`(--[a-z-]+)", README)) - {"--help"}
    assert named and all(option in said for option in named), [o for o in named if o not in said]


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", README))))
def test_links_lead_somewhere(path):
    assert Path(ROOT / path).exists()
