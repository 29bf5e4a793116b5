"""Parses a verb's options into its config: flat flags, defaults in --help, the right name for a misspelled one."""

import shutil
import textwrap
from dataclasses import fields, make_dataclass
from typing import Any, NamedTuple

import tyro

from jobs.config.config_file import ConfigFile, config_in, to_json
from jobs.config.options import VerbOptions, choice_of, chosen, flags_of, flags_of_choices
from jobs.config.plugins import PluginOptions, load_plugins
from jobs.config.refusals import refuse_in_one_line

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
        print(to_json(options, indent=2))
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
    if (path := config_in(arguments)) is None:
        return Parsed(_parse(config, verb, arguments), typed)
    file = ConfigFile(path, config)
    given = typed | file.values.keys()
    for name in typed & file.values.keys():  # a default would be checked, and extended by options that append
        del file.values[name]
    options = _parse(config, verb, arguments, file.defaults())
    if choice := choice_of(config):
        if (name := chosen(options, choice)) != file.values.get(config.choice_key):
            file.values[config.choice_key] = name  # tyro has given it the sub-command's defaults instead of the file's
            options = _parse(config, verb, arguments, file.defaults())
        file.check_choice(name)
    return Parsed(options, given)


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
