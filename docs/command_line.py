"""Writes docs/reference/command-line.md, every verb with its options, from the classes that define them.

python docs/command_line.py      # or: make reference
"""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import is_dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import tyro  # noqa: E402

from jobs.cli import VERBS  # noqa: E402
from jobs.config.options import Option, fields_of  # noqa: E402
from jobs.config.published import PUBLISHED  # noqa: E402

PAGE = ROOT / "docs" / "reference" / "command-line.md"
EVERY_VERB = ("config", "print_config")
HEAD = """# Command line

This page is made from the program itself (`make reference`), and a test keeps it current. The same stands in
`tilespin VERB --help`. Any option can also stand in a file, see [Options in a file](../studies.md#options-in-a-file).

| verb | what it does |
|---|---|
"""


class Entry(NamedTuple):
    """Is an option as the page shows it."""

    flag: str
    default: str
    meaning: str


def page() -> str:
    """Returns the whole page."""
    found = [HEAD + "".join(f"| [`{verb}`](#tilespin-{verb}) | {what} |\n" for verb, (_, what) in VERBS.items())]
    first = _options_of("data")
    rows = [_entry(first, option) for option in fields_of(first) if option.name in EVERY_VERB]
    found.append("\n## Options of every verb\n\n" + _table(rows))
    for verb in VERBS:
        kind = _options_of(verb)
        found.append(f"\n## tilespin {verb}\n\n{_sentences(kind)}\n\n" + "\n".join(_groups(kind, tyro.MISSING)))
    return "".join(found)


def _options_of(verb: str) -> Any:
    module = import_module(VERBS[verb][0])
    return module.options_type() if hasattr(module, "options_type") else module.Options


def _groups(kind: Any, values: Any) -> Iterator[str]:
    """Yields the tables of a verb's options: its own, those of its groups, and those of its sub-commands."""
    own = [one for one in fields_of(kind) if one.role in ("option", "positional") and one.name not in EVERY_VERB]
    if own:
        yield _table([_entry(kind, one, values) for one in own])
    for one in fields_of(kind):
        if one.role == "group":
            yield f"**{one.name.capitalize()}.** {_sentences(one.kind)}\n"
            yield from _groups(one.kind, _value(one, values))
        elif one.role == "choice":
            yield from _choices(one)


def _choices(choice: Option) -> Iterator[str]:
    """Yields what sub-commands have in common, and then what each has of its own."""
    shown = {name: dict(_flat(kind, of)) for name, (kind, of) in choice.choices.items() if name not in PUBLISHED}
    common = set.intersection(*(set(of) for of in shown.values())) if len(shown) > 1 else set()
    alike = {flag for flag in common if len({of[flag].default for of in shown.values()}) == 1}
    if common:
        first = next(iter(shown.values()))
        yield "Of every sub-command, below with the defaults that differ:\n"
        rows = [entry for flag, entry in first.items() if flag in common]
        yield _table([row if row.flag in alike else row._replace(default="") for row in rows])
    for name, of in shown.items():
        kind = choice.choices[name][0]
        task = next((one.kind for one in fields_of(kind) if one.name == "task"), kind)
        yield f"### {name}\n\n{_sentences(task)}\n"
        if rows := [entry for flag, entry in of.items() if flag not in alike]:
            yield _table(rows)
    if published := [name for name in choice.choices if name in PUBLISHED]:
        yield "### Recipes of the literature\n\n| name | what it is |\n|---|---|"
        yield "\n".join(f"| `{name}` | {_cell(PUBLISHED[name].description)} |" for name in published) + "\n"


def _flat(kind: Any, values: Any) -> Iterator[tuple[str, Entry]]:
    for one in fields_of(kind):
        if one.role == "group":
            yield from _flat(one.kind, _value(one, values))
        elif one.role in ("option", "positional"):
            entry = _entry(kind, one, values)
            yield entry.flag, entry


def _entry(kind: Any, option: Option, values: Any = tyro.MISSING) -> Entry:
    name = option.name.replace("_", "-")
    flag = f"`--{name}`" + (f", `--no-{name}`" if option.kind is bool else "")
    if option.role == "positional":
        flag = f"`{_note(kind, option.name, 'metavar')}`"
    meaning = _meaning(kind, option.name)
    if get_origin(option.kind) is Literal:
        meaning = f"one of {', '.join(f'`{of}`' for of in get_args(option.kind))}; {meaning}".removesuffix("; ")
    return Entry(flag, _shown(_value(option, values)), _cell(meaning))


def _value(option: Option, values: Any) -> Any:
    """Returns an option's default: that of these values, or of the class if there are none."""
    return getattr(values, option.name) if is_dataclass(values) else option.default


def _shown(value: Any) -> str:
    if type(value) in (type(tyro.MISSING), type(tyro.MISSING_NONPROP)):
        return "required"
    if isinstance(value, bool):
        return "on" if value else "off"
    words = [str(of) for of in value] if isinstance(value, (list, tuple)) else [] if value is None else [str(value)]
    return f"`{' '.join(words)}`" if any(words) else ""


def _meaning(kind: Any, name: str) -> str:
    """Returns the help of an option: of its annotation, or the string below it in the class that defines it."""
    if text := _note(kind, name, "help"):
        return text
    for owner in kind.__mro__:
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        except (OSError, TypeError, SyntaxError):  # a class that was made, and not written
            continue
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for one, below in pairwise(body):
            if isinstance(one, ast.AnnAssign) and getattr(one.target, "id", "") == name and isinstance(below, ast.Expr):
                return ast.literal_eval(below.value)
    return ""


def _note(kind: Any, name: str, what: str) -> str:
    """Returns what the annotations of an option say beside its type; "" if nothing."""
    notes = get_args(get_type_hints(kind, include_extras=True)[name])[1:]
    return next((said for note in notes if (said := getattr(note, what, None))), "")


def _sentences(kind: Any) -> str:
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split())


def _cell(text: str) -> str:
    """Returns help as one line of a table; a choice that has a line of its own, `name: …`, keeps it."""
    found = ""
    for line in map(str.strip, text.replace("|", "\\|").replace("<", "&lt;").splitlines()):
        found += ("<br>" if re.match(r"(?!default)[\w:=]+: ", line) else " ") * bool(found) + line
    return found


def _table(rows: list[Entry]) -> str:
    head = "| option | default | meaning |\n|---|---|---|\n"
    return head + "".join(f"| {row.flag} | {row.default} | {row.meaning} |\n" for row in rows)


if __name__ == "__main__":
    PAGE.write_text(page())
