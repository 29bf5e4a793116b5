"""Parsing a verb's options into its config: flat flags, defaults in --help, a typo answered with the right name."""

from typing import Any

import tyro

from jobs.config.refusals import refuse_in_one_line

STYLE = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.CascadeSubcommandArgs)


def parse(config: Any, verb: str, arguments: list[str], default: Any = None) -> Any:
    """Raises UserError for options that do not exist or cannot be read. `default` replaces the type's own defaults."""
    extra = {} if default is None else {"default": default}
    with refuse_in_one_line(config, verb, arguments):
        return tyro.cli(
            config, prog=f"tilespin {verb}", args=arguments, config=STYLE, description=config.__doc__, **extra
        )


def subcommand_choice(choices: dict[str, Any], descriptions: dict[str, str] | None = None) -> Any:
    """A type for a config's field: a sub-command for each name in `choices`, with that default value. Without a
    description it is the first line of what the value's type says of itself."""
    first_lines = {name: (value.__doc__ or "").strip().splitlines()[0] for name, value in choices.items()}
    return tyro.extras.subcommand_type_from_defaults(choices, first_lines | (descriptions or {}), prefix_names=False)
