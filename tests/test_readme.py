"""README and the pages of docs/ tell the truth: commands run, options and files exist, links lead somewhere."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import yaml
from support.command import ROOT
from support.plugin_package import PROTOCOL, SOURCE, TASK

import tilespin
from docs.command_line import PAGE, page
from jobs.cli import VERBS, run_command

DOCS = ROOT / "docs"
HISTORY = {DOCS / "log.md", DOCS / "changelog.md"}  # what was true once
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(set(DOCS.rglob("*.md")) - HISTORY)]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PARSED = [DOCS / "choose.md"]  # pages whose commands are only parsed
README = (ROOT / "README.md").read_text()


def blocks(path: Path, language: str = "") -> list[str]:
    """The blocks of code of a page that are in a language; commands have none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)
    return [block for kind, block in found if kind == language]


def commands(path: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for block in blocks(path) for line in block.splitlines())
    return [line.removeprefix(".venv/bin/") for line in lines if re.match(r"(\.venv/bin/)?tilespin ", line)]


COMMANDS = [command for path in PAGES if path not in PARSED for command in commands(path)]
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
    study that is there already; the files of plug-ins are those of docs/extending.md."""
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


@pytest.mark.parametrize("path", [path for path in PAGES if blocks(path, "python")], ids=lambda path: path.name)
def test_python_is_python_and_names_what_there_is(path):
    """Each block compiles, and what it takes from the module tilespin is there."""
    for block in blocks(path, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tilespin":
                assert hasattr(tilespin, node.attr), node.attr


@pytest.mark.parametrize("path", PARSED, ids=lambda path: path.name)
def test_commands_parse(path, capsys):
    """Each line of pages whose commands are not run; they are as those that the test above runs."""
    lines = commands(path)
    assert len(lines) >= 3
    for line in lines:
        with pytest.raises(SystemExit, match=r"^0$"):
            run_command([*shlex.split(line)[1:], "--print-config"])
    assert "UNLABELED" in capsys.readouterr().out


def test_make_targets_exist():
    """Those in code, since make is a word of English, too; workflows call nothing else."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for path in PAGES for name in re.findall(r"(?:`|^)make ([\w-]+)", path.read_text(), re.MULTILINE)}
    assert {"demo", "docs", "test-fast"} <= named <= targets
    jobs = [job for path in WORKFLOWS for job in yaml.safe_load(path.read_text())["jobs"].values()]
    run = {step["run"] for job in jobs for step in job["steps"] if "run" in step}
    assert run == {f"make {name}" for name in ("lint", "test-fast", "test", "docs", "faults", "encoders")}


def test_benchmarks_exist():
    named = {name for path in PAGES for name in re.findall(r"python -m benchmarks\.(\w+)", path.read_text())}
    assert {"kernels", "loader"} <= named <= {path.stem for path in (ROOT / "benchmarks").glob("*.py")}


@pytest.mark.slow
def test_the_page_of_the_command_line_is_current():
    assert page() == PAGE.read_text(), "make reference writes it anew"


def test_options_exist():
    """Every --option in a page is one of some verb's: the page of the command line, which is current, has all."""
    known = set(re.findall(r"`(--[a-z-]+)`", PAGE.read_text())) | {"--help", "--version"}
    pages = [path for path in PAGES if path != DOCS / "goodput.md"]  # has those of its benchmark
    named = {option: path.name for path in pages for option in re.findall(r"`(--[a-z-]+)", path.read_text())}
    assert len(named) > 50 and not {option: name for option, name in named.items() if option not in known}


def slugs(path: Path) -> set[str]:
    """The anchors of a page's headings, as sites and GitHub name them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [*PAGES, DOCS / "log.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\((?!http)([^)]+)\)", path.read_text()):
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in slugs(target), link


def test_all_there_is_has_its_place():
    """Every task and protocol has a section, every name of the module a reference, every page a place on the site."""
    assert set(tilespin.list_tasks()) <= slugs(DOCS / "tasks.md")
    assert set(tilespin.list_protocols()) <= slugs(DOCS / "protocols.md")
    documented = re.findall(r"^::: [\w.]+\.(\w+)$", (DOCS / "reference" / "python.md").read_text(), re.MULTILINE)
    assert set(tilespin.__all__) <= set(documented)
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    placed = [name for entry in site["nav"] for of in entry.values() for name in ([of] if isinstance(of, str) else of)]
    placed = [next(iter(one.values())) if isinstance(one, dict) else one for one in placed]
    assert sorted(placed) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def test_the_readme_is_a_door():
    lines = README.splitlines()
    assert len(lines) <= 130
    assert next(i for i, line in enumerate(lines, start=1) if line.startswith("```")) < 30
