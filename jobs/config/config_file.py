"""Reads a verb's options from a file in TOML or JSON, and writes them as TOML or JSON."""

import json
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import tyro

from jobs.config.options import OWN, choice_of, document_of, fields_of, flat, values_of
from ssl_core.errors import UserError, choose, closest

NONE = "None"  # what says in a file, as on the command line, that an option has no value


class ConfigFile:
    """Holds the options that were read from a file, by name.

    An option may stand in a table that is called like its group: `[runtime]`, `[evaluation]`.

    Args:
        given: What --config was given: a file's name, or JSON, which begins with "{".
        config: The type of the verb's options.

    Attributes:
        values: The options' values as JSON has them; the sub-command is one of them.

    Raises:
        UserError: If the file cannot be read, or has an option that the verb does not have.
    """

    def __init__(self, given: str, config: Any):
        self.config, self.key = config, config.choice_key
        inline = given.lstrip().startswith("{")
        self.source = "--config" if inline else given
        text = given if inline else self._read(given)
        parsed = self._parsed(text, toml=not inline and given.endswith(".toml"))
        self.values = ungrouped(parsed, config, self.source)
        self._check_names()

    def defaults(self, base: Any = tyro.MISSING) -> Any:
        """Returns the verb's options with the values of the file and, where it has none, those of `base`.

        Args:
            base: Options; tyro.MISSING: the options' own defaults. What has none stays tyro.MISSING.

        Raises:
            UserError: If a value is of another type than the option's.
        """
        choice = choice_of(self.config)
        chosen = choice.choices.get(self.values.get(self.key, "")) if choice else None
        return fill(self.config, base, self.values, self.source, chosen)

    def check_choice(self, name: str) -> None:
        """Raises UserError if the file has an option that the sub-command `name` lacks."""
        choice = choice_of(self.config)
        assert choice is not None
        known = {field.name for kind in (self.config, choice.choices[name][0]) for field in flat(kind)} | {self.key}
        if foreign := [one for one in self.values if one not in known]:
            others = [
                one for one, (kind, _) in choice.choices.items() if foreign[0] in {field.name for field in flat(kind)}
            ]
            raise UserError(f"{self.source}: {name} has no option {foreign[0]}: {', '.join(others)} have it")

    def _check_names(self) -> None:
        choice = choice_of(self.config)
        kinds = [self.config, *(kind for kind, _ in choice.choices.values())] if choice else [self.config]
        known = {field.name for kind in kinds for field in flat(kind)} - OWN | ({self.key} if choice else set())
        check_names(self.values, known, self.source, "its --help lists those there are, here without dashes")
        if choice and (name := self.values.get(self.key)) is not None and name not in choice.choices:
            raise UserError(f"{self.source}: {self.key} {name}: {choose(str(name), choice.choices)}")

    def _read(self, path: str) -> str:
        if not path.endswith((".toml", ".json")):
            raise UserError(f"--config {self.source}: expected a name that ends with .toml or .json")
        try:
            return Path(path).expanduser().read_text("utf-8")
        except (OSError, RuntimeError) as error:
            raise UserError(f"{self.source} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{self.source}: expected text in UTF-8") from error

    def _parsed(self, text: str, toml: bool) -> dict[str, Any]:
        try:
            found = tomllib.loads(text) if toml else json.loads(text, object_pairs_hook=self._without_repetition)
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"{self.source} is no {'TOML' if toml else 'JSON'}: {error}") from error
        if not isinstance(found, dict):
            raise UserError(f'{self.source}: expected an object of options, such as {{"steps": 1000}}')
        return found

    def _without_repetition(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Makes an object of JSON. A name that is there twice is refused, as TOML does itself."""
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise UserError(f"{self.source}: {name} is there twice")
            found[name] = value
        return found


def ungrouped(values: Mapping[str, Any], config: Any, source: str) -> dict[str, Any]:
    """Takes options out of the tables of their groups.

    Args:
        values: Options, and tables of them, as a file has them.
        config: The dataclass of the options.
        source: Where they are from, for messages.

    Returns:
        The options by name, with underscores.

    Raises:
        UserError: If an option is there twice, or stands in a table that is not its group's.
    """
    groups = _tables(config)
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        inside = {name: value}
        if name in groups and isinstance(value, dict):
            inside = ungrouped(value, groups[name], source)
            names = {field.name for field in flat(groups[name])}
            check_names(inside, names, f"{source}: [{name}]", f"there is {', '.join(sorted(names))}")
        for option, of in inside.items():
            if option in found:
                raise UserError(f"{source}: {option} is there twice")
            found[option] = of
    return found


def _tables(config: Any) -> dict[str, Any]:
    """Returns the groups of options that may stand in a table, by its name."""
    top = getattr(config, "document_key", "")
    found = {field.name: field.kind for field in fields_of(config) if field.role == "group"}
    return {**found, **(_tables(found.pop(top)) if top else {})}


def check_names(values: Mapping[str, Any], known: set[str], source: str, hint: str) -> None:
    """Raises UserError if an option is not known; it says which is probably meant, or `hint`."""
    for name in values:
        if name not in known:
            close = closest(name, known)
            raise UserError(f"{source}: no option {name}: {f'did you mean {close}?' if close else hint}")


def fill(
    kind: Any, default: Any, values: Mapping[str, Any], source: str, chosen: tuple[type, Any] | None = None
) -> Any:
    """Makes a dataclass of options.

    Args:
        kind: The dataclass.
        default: An instance, for options without a value; or tyro.MISSING for the fields' own defaults.
        values: Options by name, as JSON has them.
        source: Where they are from, for messages.
        chosen: The type and defaults of the sub-command's options; None: it stays open.

    Raises:
        UserError: If a value is of another type than the option's.
    """
    made = {}
    for field in fields_of(kind):
        own = field.default if _missing(default) else getattr(default, field.name)
        if field.role == "group":
            own = fill(field.kind, own, values, source)
        elif field.role == "choice":
            own = tyro.MISSING if chosen is None else fill(*chosen, values, source)
        elif field.role != "hidden" and field.name in values:
            own = _checked(field.name, values[field.name], field.kind, source)
        made[field.name] = own
    return kind(**made)


def _checked(name: str, value: Any, kind: Any, source: str) -> Any:
    """Returns an option's value as its type. Raises UserError if it is of another."""
    from pydantic import TypeAdapter, ValidationError

    if value == NONE and type(None) in get_args(kind):
        return None
    if get_origin(kind) is tuple and not isinstance(value, list):
        value = [value]  # one where several may be given
    text = json.dumps(value, default=str)  # TOML has dates, which no option is
    try:
        return TypeAdapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":  # of an option that checks itself
            raise UserError(f"{source}: {name}: {first['msg'].removeprefix('Value error, ')}") from error
        why = first["msg"].removeprefix("Input should be ")
        where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in first["loc"])
        raise UserError(
            f"{source}: {name}{where} is {json.dumps(first['input'], default=str)}, expected {why}"
        ) from error


def to_json(options: Any, indent: int | None = None) -> str:
    """Returns a verb's parsed options as JSON, which --config reads."""
    return json.dumps(document_of(options), indent=indent, default=str)


def to_toml(options: Any) -> str:
    """Returns a verb's parsed options as TOML, which --config reads.

    An option without a value is left out, since TOML has no null; or is "None" where it has one by default.
    """
    import tomli_w

    document = json.loads(to_json(options))
    short = _replace_none(document, frozenset())
    defaults = values_of(ConfigFile(json.dumps(short), type(options)).defaults())
    needed = {name for name, value in values_of(options).items() if value is None and defaults[name] is not None}
    return tomli_w.dumps(_replace_none(document, needed))


def _replace_none(document: dict[str, Any], needed: Collection[str]) -> dict[str, Any]:
    """Leaves out names whose value is None, but those in `needed`, which get "None"."""
    found = {}
    for name, value in document.items():
        if isinstance(value, dict):
            found[name] = _replace_none(value, needed)
        elif value is not None or name in needed:
            found[name] = NONE if value is None else value
    return found


def _missing(value: Any) -> bool:
    return value is tyro.MISSING or value is tyro.MISSING_NONPROP


def config_in(arguments: list[str]) -> str | None:
    """Returns the value of the last --config; None if there is none, or one without a value, which tyro refuses."""
    found = None
    for i, word in enumerate(arguments):
        if word.startswith("--config="):
            found = word.removeprefix("--config=")
        elif word == "--config":
            found = arguments[i + 1] if i + 1 < len(arguments) else None
    return found
