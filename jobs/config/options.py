"""Describes the options of a verb as the command line and files name them: each by a name of its own, without
groups."""

from collections.abc import Iterator, Set
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, Union, get_args, get_origin, get_type_hints

import tyro


@dataclass(frozen=True, kw_only=True)
class VerbOptions:
    """Has the options of every verb: to read the others from a file, and to print them.

    Attributes:
        choice_key: What files call the verb's sub-command; "" for a verb that has none.
        alternatives: Options of which one, given later or on the command line, takes the place of others in a file.
        document_key: The field whose options stand at the top of a file, without a table; "" for a verb that has none.
    """

    choice_key: ClassVar[str] = ""
    alternatives: ClassVar[frozenset[str]] = frozenset()
    document_key: ClassVar[str] = ""

    config: str | None = None
    """file with options by their names, such as grad_accumulation = 2, in TOML or JSON, or JSON itself;
    options on the command line override it"""
    print_config: bool = False
    """print all options as TOML, which --config reads, and do nothing else"""

    def resolved(self, given: Set[str]) -> Self:
        """Fills in what depends on which options were given.

        Args:
            given: Names of the options that are on the command line or in the file.

        Raises:
            UserError: If options that were given exclude each other.
        """
        return self


class Option(NamedTuple):
    """Describes a field of a verb's options.

    Attributes:
        name: As in the dataclass.
        role: A "group" is a dataclass with options, a "choice" a sub-command; "hidden" is no option.
        kind: The type, without annotations.
        default: What it is if it is not given, or tyro.MISSING.
        choices: The type and the defaults of each sub-command's options, for a choice.
    """

    name: str
    role: Literal["option", "positional", "group", "choice", "hidden"]
    kind: Any
    default: Any
    choices: dict[str, tuple[type, Any]]


def fields_of(config: Any) -> list[Option]:
    """Returns the fields of a dataclass of options."""
    hints = get_type_hints(config, include_extras=True)
    found = []
    for field in fields(config):
        kind, notes = _split(hints[field.name])
        choices = {}
        for inner, inner_notes in map(_split, get_args(kind) if get_origin(kind) in (Union, UnionType) else ()):
            if is_dataclass(inner):
                note = next(note for note in inner_notes if getattr(note, "name", None))
                choices[note.name] = (inner, note.default)
        markers = {note for note in notes if note.__hash__}
        if tyro.conf.Suppress in markers:
            role = "hidden"
        elif is_dataclass(kind) or choices:
            role = "choice" if choices else "group"
        else:
            role = "positional" if tyro.conf.Positional in markers else "option"
        default = tyro.MISSING if field.default is MISSING else field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        found.append(Option(field.name, role, kind, default, choices))
    return found


def flat(config: Any) -> Iterator[Option]:
    """Yields the options of a dataclass and of its groups, but not those of its sub-commands."""
    for field in fields_of(config):
        if field.role == "group":
            yield from flat(field.kind)
        elif field.role in ("option", "positional"):
            yield field


def choice_of(config: Any) -> Option | None:
    """Returns the field of a verb's options that is its sub-command, or None if it has none."""
    return next((field for field in fields_of(config) if field.role == "choice"), None)


def chosen(options: Any, choice: Option) -> str:
    """Returns the name of the sub-command that parsed options have in the field `choice`."""
    value = getattr(options, choice.name)
    return next(name for name, (kind, _) in choice.choices.items() if type(value) is kind)


def values_of(options: Any) -> dict[str, Any]:
    """Returns the values of a verb's parsed options by name: the sub-command first, then its options and others."""
    found = {}
    for field in fields_of(type(options)):
        value = getattr(options, field.name)
        if field.role in ("group", "choice"):
            found |= values_of(value)
        elif field.role != "hidden":
            found[field.name] = value
    if not isinstance(options, VerbOptions):
        return found
    choice = choice_of(type(options))
    first = {options.choice_key: chosen(options, choice)} if choice else {}
    return first | {key: found[key] for key in found if key not in OWN}


def document_of(options: Any) -> dict[str, Any]:
    """Returns parsed options as a file has them: a table for each group, after the options without one."""
    plain, tables = {}, {}
    for field in fields_of(type(options)):
        value = getattr(options, field.name)
        if field.role == "choice":
            plain = {options.choice_key: chosen(options, field), **plain, **values_of(value)}
        elif field.role == "group" and field.name == getattr(options, "document_key", ""):
            for name, of in document_of(value).items():
                (tables if isinstance(of, dict) else plain)[name] = of
        elif field.role == "group":
            tables[field.name] = values_of(value)
        elif field.role != "hidden" and not (isinstance(options, VerbOptions) and field.name in OWN):
            plain[field.name] = value
    return _as_document({**plain, **tables})


def as_json(value: Any) -> Any:
    """Returns what JSON has for a value that it does not know: an entry's own form, or text. For json.dumps."""
    return value.document() if hasattr(value, "document") else str(value)


def _as_document(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_document(of) for name, of in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_document(one) for one in value]
    return _as_document(value.document()) if hasattr(value, "document") else value


def flags_of(config: Any) -> dict[str, str]:
    """Returns the option that each flag of the command line sets, sub-commands' options not among them."""
    found = {}
    for field in flat(config):
        if field.role == "option":
            flag = field.name.replace("_", "-")
            found |= {f"--{flag}": field.name} | ({f"--no-{flag}": field.name} if field.kind is bool else {})
    return found


def flags_of_choices(config: Any) -> dict[str, dict[str, str]]:
    """Returns, for each sub-command, what `flags_of` returns for its options."""
    choice = choice_of(config)
    return {name: flags_of(kind) for name, (kind, _) in choice.choices.items()} if choice else {}


def one_word(kind: Any, metavar: str) -> Any:
    """Returns how tyro reads and shows an option's value that a class of our own makes of one word.

    Args:
        kind: The class; `kind.parse(word)` makes an instance, and `str` of it is the word.
        metavar: What help calls the word.
    """
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: kind.parse(words[0]),
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
    )


def _split(hint: Any) -> tuple[Any, tuple]:
    """Returns a type without its annotations, and these."""
    return (get_args(hint)[0], get_args(hint)[1:]) if get_origin(hint) is Annotated else (hint, ())


# in no file: they say how options are read
OWN = frozenset({"document", *(field.name for field in flat(VerbOptions))})
