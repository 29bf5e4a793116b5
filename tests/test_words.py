"""The sources use the field's words: none of those that the first edition had of its own."""

import ast
import re
from collections.abc import Iterator

import pytest
from support.command import ROOT

# What they are called now: value, message, evaluate, external, shuffled, inject, resolve, flush, node, ...
RETIRED = {
    *("told", "said", "tells", "judge", "judged", "judges", "judgment", "judgments", "brought", "arrival", "arrivals"),
    *("puzzled", "strikes", "meant", "settle", "patience", "patiently", "pulse", "thing", "things", "beside"),
}
PLAIN = {"beside", "told", "said", "thing", "things", "meant", "tells"}  # English in prose: retired as names only
SOURCES = [path for name in ("kernels", "ssl_core", "cluster", "jobs") for path in sorted((ROOT / name).rglob("*.py"))]


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every identifier that is defined, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every string, the options' help and the messages among them, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower()))


def found(source: str) -> list[str]:
    tree = ast.parse(source)
    hits = [(line, name) for line, name in names(tree) if words(name) & RETIRED]
    hits += [(line, text) for line, text in texts(tree) if words(text) & (RETIRED - PLAIN)]
    return [f"{line}: {what}" for line, what in sorted(hits)]


def test_retired_words_are_found():
    source = 'def judged():\n    """Help."""\n    told = "an arrival"\n    self.pulse = "he is told of it"\n'
    assert found(source) == ["1: judged", "3: an arrival", "3: told", "4: pulse"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
@pytest.mark.slow
def test_no_retired_word_is_left(path):
    assert not found(path.read_text())
