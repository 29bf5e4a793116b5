"""Prepares a verb's command line for a cluster: checked here, with paths that mean the same there."""

import os
import shlex
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jobs.cli import VERBS
from jobs.config.parsing import parse
from jobs.config.plugins import load_plugins
from jobs.study.folder import Study
from ssl_core.data.data_source import dataset_names
from ssl_core.encoders.pretrained import RANDOM
from ssl_core.errors import UserError, choose
from ssl_core.storage.object_store import is_url


@dataclass(frozen=True)
class PathOption:
    """Describes an option that says where something lies."""

    flag: str  # what messages call it
    value: Callable[[Any], str | None]  # its value in the verb's options; None: it was not given
    data: bool = False  # whether it may be a dataset's name as well


STORAGE = PathOption("--storage", lambda options: options.runtime.storage)
STUDY = PathOption("STUDY", lambda options: options.study)
# verb: where things lie that it reads and writes
PATH_OPTIONS = {
    "study": (STORAGE, PathOption("--data", lambda options: options.study.data, data=True)),
    "pretrain": (STORAGE, PathOption("--data", lambda options: options.recipe.data, data=True)),
    "sweep": (STORAGE, PathOption("--data", lambda options: options.grid.data, data=True)),
    "evaluate": (STUDY, PathOption("--data", lambda options: options.data, data=True)),
    "compare": (),  # its studies, see below
    "pack": (PathOption("SRC", lambda options: options.src, data=True), PathOption("DST", lambda options: options.dst)),
    "doctor": (),
}


@dataclass(frozen=True)
class Command:
    """Holds what a cluster is to run: `tilespin VERB ARGUMENTS`."""

    verb: str
    arguments: tuple[str, ...]
    name: str  # for people, such as the study's
    study: str | None  # its folder or URL

    @property
    def compares(self) -> bool:
        """Returns whether the study will have results.csv and report.html."""
        return self.verb in ("study", "evaluate", "compare")

    def line(self, python: str) -> str:
        """Returns the command for a shell, in a folder that holds the code."""
        return shlex.join([python, "-m", "jobs.cli", self.verb, *self.arguments])


def prepare_command(words: list[str], here: bool) -> Command:
    """Checks a command line and makes its paths fit for a cluster.

    Args:
        words: The verb and its arguments, as typed.
        here: Whether the cluster is this machine alone.

    Raises:
        UserError: If the verb would refuse it, as far as that can be known from afar, for relative paths on other
            machines, and for keys among the arguments.
    """
    verb = words[0]
    if verb not in PATH_OPTIONS:
        raise UserError(f"no verb {verb!r} to submit: {choose(verb, PATH_OPTIONS)}")
    for word in words[1:]:
        _check_open(word)
    arguments = load_plugins(words[1:])  # the files are sent along, and found there without the option
    parser = _verb_parser(verb)
    options = parser(arguments)
    _check(options)
    for option in (*PATH_OPTIONS[verb], *_several(options)):
        if value := option.value(options):
            arguments = _replace_option(parser, arguments, option, _resolve(option, value, here))
    if getattr(getattr(options, "runtime", None), "workers", None) == "0" and not _is_given("--workers", arguments):
        arguments = [*arguments, "--workers", "1"]  # 0 would train on the head's machine, beside what runs the cluster
    options = parser(arguments)
    return Command(verb, tuple(arguments), *_option_name(verb, options))


def _several(options: Any) -> list[PathOption]:
    """Returns an option for each file or folder that an --encoder of `evaluate` names, and for each study of
    `compare`."""

    def study(options: Any, i: int) -> str:
        return options.studies[i]

    def path(options: Any, i: int) -> str | None:
        library, _, rest = options.encoder[i].partition(":")
        if library not in ("timm", "torchvision"):
            return options.encoder[i]
        file = rest.partition("=")[2]
        return None if file in ("", RANDOM) else file

    count = len(options.encoder) if isinstance(getattr(options, "encoder", None), tuple) else 0
    found = [PathOption("--encoder", partial(path, i=i)) for i in range(count)]
    return found + [PathOption("STUDY", partial(study, i=i)) for i in range(len(getattr(options, "studies", ())))]


def _verb_parser(verb: str) -> Callable[[list[str]], Any]:
    """Returns a function that parses the verb's arguments."""
    module = import_module(VERBS[verb][0])
    kind = module.options_type() if hasattr(module, "options_type") else module.Options
    return lambda arguments: parse(kind, verb, arguments)


def _check(options: Any) -> None:
    """Checks each part of the options, except that data and studies lie on the cluster and are not looked for."""
    if hasattr(options, "runtime"):
        replace(options.runtime, wandb="off").checked()  # who is logged in at W&B counts there, not here
        Study.open("runs", options.runtime.name or "runs")
    evaluation = getattr(options, "evaluation", None) or getattr(getattr(options, "study", None), "evaluation", None)
    if evaluation:
        evaluation.check()
    if hasattr(options, "studies"):
        options.check()
    if hasattr(options, "packing"):
        options.packing.checked()


def _check_open(word: str) -> None:
    """Raises UserError for a URL with a key in it: all who see the cluster's dashboard can read arguments."""
    url = word.split("=", 1)[1] if word.startswith("-") and "=" in word else word
    if is_url(url):
        parts = urlsplit(url)
        if parts.password is not None or (parts.scheme in ("http", "https") and parts.query):
            raise UserError(
                f"{parts.scheme}://{parts.hostname}{parts.path}: give keys in the environment of the "
                "cluster's machines, not in a URL, which its dashboard shows to all"
            )


def _resolve(option: PathOption, value: str, here: bool) -> str:
    """Returns the same place, written so that it means the same on the cluster. Raises UserError if it cannot be."""
    known = option.data and value in dataset_names()
    if known or is_url(value) or os.path.isabs(value) or value.startswith("~"):
        return value
    if here:
        return os.path.abspath(value)
    raise UserError(
        f"{option.flag} {value}: a relative path would lie in a temporary folder of one of the cluster's machines: "
        "give an absolute path that all of them share, or a URL such as s3://BUCKET/FOLDER"
    )


def _replace_option(parser: Callable, arguments: list[str], option: PathOption, new: str) -> list[str]:
    """Returns `arguments` with `new` in place of the option's value, or added.

    Which word the value was, only the verb's parser knows.
    """
    value = option.value(parser(arguments))
    assert value is not None  # it was given, or has a default
    if value == new:
        return arguments
    for i, word in enumerate(arguments):
        if word == value or word.endswith(f"={value}"):
            tried = [*arguments[:i], word[: len(word) - len(value)] + new, *arguments[i + 1 :]]
            with suppress(UserError):  # not that word: another option has the same value
                if option.value(parser(tried)) == new:
                    return tried
    return [*arguments, option.flag, new]


def _is_given(option: str, arguments: list[str]) -> bool:
    return any(word == option or word.startswith(f"{option}=") for word in arguments)


def _option_name(verb: str, options: Any) -> tuple[str, str | None]:
    """Returns a name for the job, and the study that it works on."""
    if verb == "compare":
        first = options.studies[0].rstrip("/")
        study = first if len(options.studies) == 1 else f"{first.rpartition('/')[0] or '.'}/{options.name}"
        return study.rsplit("/", 1)[-1], study
    if verb == "evaluate":
        return options.study.rstrip("/").rsplit("/", 1)[-1], options.study
    if not hasattr(options, "runtime"):
        return verb, None
    if verb == "sweep":
        return options.runtime.name, f"{options.runtime.storage.rstrip('/')}/{options.runtime.name}"
    name = options.runtime.name or (options.study.preset if verb == "study" else Path(options.recipe.data).name)
    return name, f"{options.runtime.storage.rstrip('/')}/{name}"
