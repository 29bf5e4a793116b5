"""Parses a verb's options into its config: flat flags, defaults in --help, the right name for a misspelled one."""

import shutil
import textwrap
from dataclasses import fields, make_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from jobs.config.config_file import ConfigFile, config_in, to_toml
from jobs.config.options import VerbOptions, choice_of, chosen, flags_of, flags_of_choices
from jobs.config.plugins import PluginOptions, load_plugins
from jobs.config.presets import preset_files
from jobs.config.refusals import refuse_in_one_line
from ssl_core.errors import UserError, choose

STYLE = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.CascadeSubcommandArgs)


class Parsed(NamedTuple):
    """Holds a verb's options, and the names of those that are on the command line or in the file of --config."""

    options: Any
    given: frozenset[str]


def parse(config: Any, verb: str, arguments: list[str]) -> Any:
    """Parses the options of a verb and fills in what depends on them; with --print-config, prints them and exits.

    Args:
        config: The verb's options, a dataclass that derives from VerbOptions.
        verb: The verb, which help and messages name.
        arguments: The command line after the verb.

    Raises:
        UserError: If an option does not exist, cannot be read or excludes another, or the file cannot be read.
    """
    if isinstance(getattr(config, "plugins", None), PluginOptions):
        load_plugins(arguments)
    parsed = parse_given(config, verb, arguments)
    options = parsed.options.resolved(parsed.given)
    if options.print_config:
        print(to_toml(options), end="")
        raise SystemExit(0)
    return options


def parse_given(config: type[VerbOptions], verb: str, arguments: list[str]) -> Parsed:
    """Parses the options of a verb, from the command line and from the file that --config names.

    Args:
        config: The verb's options.
        verb: The verb, which help and messages name.
        arguments: The command line after the verb.

    Raises:
        UserError: If an option does not exist or cannot be read, or the file cannot.
    """
    typed = _names_in(config, arguments)
    document, arguments = _document_and_rest(config, verb, arguments)
    paths = [path for path in (document, config_in(arguments)) if path is not None]
    if not paths:
        return Parsed(_parse(config, verb, arguments), typed)
    files = [ConfigFile(path, config) for path in paths]
    if document:
        files[0].values.setdefault("name", Path(document).stem)
    given = typed | _override(files, typed, config.alternatives)
    options = _parse(config, verb, arguments, _defaults(files))
    if choice := choice_of(config):
        (file,) = files
        if (name := chosen(options, choice)) != file.values.get(config.choice_key):
            file.values[config.choice_key] = name  # tyro has given it the sub-command's defaults instead of the file's
            options = _parse(config, verb, arguments, _defaults(files))
        file.check_choice(name)
    return Parsed(options, given)


def _override(files: list[ConfigFile], typed: frozenset[str], alternatives: frozenset[str]) -> set[str]:
    """Removes from files what options on the command line, or in a later file, count more than.

    A default would be checked, and extended by options that append.

    Args:
        files: The files, of which later ones count more.
        typed: Names of the options on the command line.
        alternatives: Options of which one takes the place of the others.

    Returns:
        The names of the options that are left.
    """
    left: set[str] = set()
    for file in reversed(files):
        replaced = alternatives if (typed | left) & alternatives else frozenset()
        file.values = {name: of for name, of in file.values.items() if name not in typed | replaced}
        left |= file.values.keys()
    return left


def _defaults(files: list[ConfigFile]) -> Any:
    """Returns a verb's options with the values of files, of which later ones count more."""
    found: Any = tyro.MISSING
    for file in files:
        found = file.defaults(found)
    return found


def _document_and_rest(config: type[VerbOptions], verb: str, arguments: list[str]) -> tuple[str | None, list[str]]:
    """Returns the file that the first word names, or the built-in one, where a verb takes one; and the other words."""
    if not config.document_key or not arguments or arguments[0].startswith("-"):
        return None, arguments
    first, *rest = arguments
    if first.endswith((".toml", ".json")):
        return first, rest
    known = preset_files()
    if first not in known:
        raise UserError(f"{verb} {first}: {choose(first, known)}, or a file that ends with .toml or .json")
    return str(known[first]), rest


def _parse(config: Any, verb: str, arguments: list[str], default: Any = None) -> Any:
    """Parses arguments by tyro; `default` replaces the type's own defaults."""
    extra = {} if default is None else {"default": default}
    lines = textwrap.wrap(" ".join(config.__doc__.split()), max(40, shutil.get_terminal_size().columns - 1))
    with refuse_in_one_line(config, verb, arguments):
        return tyro.cli(
            config,
            prog=f"tilespin {verb}",
            args=arguments,
            config=STYLE,
            description="\n ".join(lines),  # tyro joins lines that begin with a letter
            **extra,
        )


def _names_in(config: Any, arguments: list[str]) -> frozenset[str]:
    """Returns the names of the options that the words of a command line set."""
    known = flags_of(config)
    for flags in flags_of_choices(config).values():
        known |= flags
    words = (word.partition("=")[0].replace("_", "-") for word in arguments)
    return frozenset(known[word] for word in words if word in known)


def subcommand_choice(choices: dict[str, Any], descriptions: dict[str, str] | None = None) -> Any:
    """Returns a type for a config's field with a sub-command for each choice.

    Args:
        choices: For each sub-command, the default value of the field, a dataclass.
        descriptions: Help texts; default: the first line of the docstring of each value's type.
    """
    # a type of its own for each: the type of what was parsed says which was chosen
    typed = {name: with_own_type(value) for name, value in choices.items()}
    first_lines = {name: (value.__doc__ or "").strip().splitlines()[0] for name, value in choices.items()}
    return tyro.extras.subcommand_type_from_defaults(typed, first_lines | (descriptions or {}), prefix_names=False)


def with_own_type(value: Any, *extra: Any) -> Any:
    """Returns an equal dataclass instance of a type of its own, by which it is known among others.

    Args:
        value: The instance.
        extra: Fields to define anew, as `make_dataclass` takes them.
    """
    kind = type(value)
    made = make_dataclass(kind.__name__, extra, bases=(kind,), frozen=True, kw_only=True)
    made.__doc__ = kind.__doc__
    return made(**{field.name: getattr(value, field.name) for field in fields(kind)})
