"""Reads the option --plugin, which comes before all others: it decides which tasks the parser knows."""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

import ssl_core.plugin_files as plugin_files
from jobs.config.config_file import config_in
from ssl_core.errors import UserError

OPTION = "--plugin"


@dataclass(frozen=True, kw_only=True)
class PluginOptions:
    """Names the files of plug-ins."""

    plugin: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="FILE")] = ()
    """Python file with a task, a protocol or a data source of your own, one of each at most, called as the file;
    may be given several times; see docs/extending.md"""


def load_plugins(arguments: list[str]) -> list[str]:
    """Adds the files that are given by --plugin to those that tasks, protocols and data sources are found in.

    Everything that this process starts finds them too.

    Args:
        arguments: The command line after the verb.

    Returns:
        The arguments without --plugin.

    Raises:
        UserError: If a file cannot be used, or there is no plug-in in it.
    """
    files, others = _split(arguments)
    plugin_files.add_files([*files, *_in_config(arguments)])
    if names := plugin_files.plugin_files():
        from ssl_core.data.data_source import data_sources
        from ssl_core.evaluation.protocol import protocols
        from ssl_core.task import tasks

        known = {*tasks(), *protocols(), *data_sources()}
        for name, path in names.items():
            if name not in known:
                raise UserError(f"{OPTION} {path}: it has no subclass of Task, Protocol or DataSource")
        plugin_files.fix_digests()
    return others


def _in_config(arguments: list[str]) -> list[str]:
    """Returns the plug-ins that the file of --config names. What is wrong with the file is found when it is parsed."""
    given = config_in(arguments)
    if given is None and arguments and arguments[0].endswith((".toml", ".json")):
        given = arguments[0]  # the file of a study
    if given is None:
        return []
    try:
        text = given if given.lstrip().startswith("{") else Path(given).expanduser().read_text("utf-8")
        found = tomllib.loads(text) if given.endswith(".toml") else json.loads(text)
        return [str(file) for table in (found, found.get("plugins", {})) for file in table.get("plugin", ())]
    except (OSError, RuntimeError, ValueError, AttributeError, TypeError):
        return []


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Returns the files that --plugin gives, and all other words; one that lacks its file is left for the parser."""
    files, others = [], []
    words = iter(arguments)
    for word in words:
        if word.startswith(f"{OPTION}="):
            files.append(word.partition("=")[2])
        elif word == OPTION and (file := next(words, None)) is not None:
            files.append(file)
        else:
            others.append(word)
    return files, others
