"""Parses a verb's options into its config: flat flags, defaults in --help, the right name for a misspelled one."""

import shutil
import textwrap
from typing import Any

import tyro

from jobs.config.plugins import PluginOptions, load_plugins
from jobs.config.refusals import refuse_in_one_line

STYLE = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.CascadeSubcommandArgs)


def parse(config: Any, verb: str, arguments: list[str], default: Any = None) -> Any:
    """Parses the options of a verb.

    Args:
        config: The dataclass to make, or a type that tyro accepts.
        verb: The verb, which help and messages name.
        arguments: The command line after the verb.
        default: Defaults that replace the type's own.

    Raises:
        UserError: If an option does not exist or cannot be read.
    """
    if isinstance(getattr(config, "plugins", None), PluginOptions):
        load_plugins(arguments)
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


def subcommand_choice(choices: dict[str, Any], descriptions: dict[str, str] | None = None) -> Any:
    """Returns a type for a config's field with a sub-command for each choice.

    Args:
        choices: For each sub-command, the default value of the field.
        descriptions: Help texts; default: the first line of the docstring of each value's type.
    """
    first_lines = {name: (value.__doc__ or "").strip().splitlines()[0] for name, value in choices.items()}
    return tyro.extras.subcommand_type_from_defaults(choices, first_lines | (descriptions or {}), prefix_names=False)
