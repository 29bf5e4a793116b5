"""Reads a verb's options from a file in TOML or JSON, and prints them as JSON."""

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tyro

from jobs.config.options import OWN, choice_of, fields_of, flat, values_of
from ssl_core.errors import UserError, choose, closest


class ConfigFile:
    """Holds the options that were read from a file, by name.

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
        self.source = "--config" if inline else f"--config {given}"
        pairs = self._parsed(given if inline else self._read(given), toml=not inline and given.endswith(".toml"))
        self.values: dict[str, Any] = {}
        for name, value in pairs:
            name = name.replace("-", "_")
            if name in self.values:
                raise UserError(f"{self.source}: {name} is there twice")
            self.values[name] = value
        self._check_names()

    def defaults(self) -> Any:
        """Returns the verb's options with the values of the file and, where it has none, their defaults.

        What has neither is tyro.MISSING. Raises UserError for a value of another type than the option's.
        """
        return self._fill(self.config, tyro.MISSING)

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
        for name in self.values:
            if name not in known:
                close = closest(name, known)
                hint = f"did you mean {close}?" if close else "its --help lists those there are, here without dashes"
                raise UserError(f"{self.source}: no option {name}: {hint}")
        if choice and (name := self.values.get(self.key)) is not None and name not in choice.choices:
            raise UserError(f"{self.source}: {self.key} {name}: {choose(str(name), choice.choices)}")

    def _fill(self, kind: Any, default: Any) -> Any:
        """Returns an instance of `kind` like `default`, with the values of the file."""
        made = {}
        for field in fields_of(kind):
            own = field.default if _missing(default) else getattr(default, field.name)
            if field.role == "group":
                own = self._fill(field.kind, own)
            elif field.role == "choice":
                name = self.values.get(self.key)
                own = tyro.MISSING if name is None else self._fill(*field.choices[name])
            elif field.role != "hidden" and field.name in self.values:
                own = self._checked(field.name, field.kind)
            made[field.name] = own
        return kind(**made)

    def _checked(self, name: str, kind: Any) -> Any:
        """Returns an option's value as its type. Raises UserError if it is of another."""
        from pydantic import TypeAdapter, ValidationError

        text = json.dumps(self.values[name], default=str)  # TOML has dates, which no option is
        try:
            return TypeAdapter(kind).validate_json(text, strict=True)
        except ValidationError as error:
            why = error.errors()[0]["msg"].removeprefix("Input should be ")
            raise UserError(f"{self.source}: {name} is {text}, expected {why}") from error

    def _read(self, path: str) -> str:
        if not path.endswith((".toml", ".json")):
            raise UserError(f"{self.source}: expected a name that ends with .toml or .json")
        try:
            return Path(path).expanduser().read_text("utf-8")
        except (OSError, RuntimeError) as error:
            raise UserError(f"{self.source} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{self.source}: expected text in UTF-8") from error

    def _parsed(self, text: str, toml: bool) -> Iterable[tuple[str, Any]]:
        try:
            # pairs: an object that has a name twice is refused here, as TOML does itself
            found = tomllib.loads(text).items() if toml else json.loads(text, object_pairs_hook=list)
        except ValueError as error:
            raise UserError(f"{self.source} is no {'TOML' if toml else 'JSON'}: {error}") from error
        if not toml and not text.lstrip().startswith("{"):
            raise UserError(f'{self.source}: expected an object of options, such as {{"steps": 1000}}')
        return found


def to_json(options: Any, indent: int | None = None) -> str:
    """Returns a verb's parsed options as JSON, which --config reads."""
    return json.dumps(values_of(options), indent=indent, default=str)


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
