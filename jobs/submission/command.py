"""Prepares a verb's options for a cluster: checked here, with paths that mean the same there, and sent as JSON."""

import json
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jobs.cli import VERBS
from jobs.config.evaluation import TransferEntry
from jobs.config.options import as_json, flat, values_of
from jobs.config.parsing import parse, parse_given
from jobs.config.plugins import load_plugins
from jobs.config.study import StudyConfig
from jobs.study.folder import Study
from ssl_core.data.data_source import dataset_names
from ssl_core.encoders.pretrained import with_place
from ssl_core.errors import UserError, choose
from ssl_core.storage.object_store import is_url

# verb: its options that say where something lies that it reads or writes
PATH_OPTIONS = {
    "data": ("dataset", "contact_sheet", "json"),
    "study": ("storage", "data", "transfer", "init"),
    "pretrain": ("storage", "data", "init"),
    "sweep": ("storage", "data"),
    "evaluate": ("study", "data", "encoder", "transfer"),
    "compare": ("studies",),
    "embed": ("encoder", "data", "output"),
    "pack": ("src", "dst"),
    "doctor": (),
}
DATASETS = ("data", "dataset", "src")  # options that may be a dataset's name as well
# arguments without a flag, in messages
LABELS = {"study": "STUDY", "studies": "STUDY", "dataset": "DATA", "src": "SRC", "dst": "DST"}


@dataclass(frozen=True)
class Command:
    """Holds what a cluster is to run.

    Attributes:
        verb: The verb.
        options: Those of its options that were given, by name, as --config reads them; paths are absolute.
        name: A name for people, such as the study's.
        study: The folder or URL of the study that it works on, if any.
    """

    verb: str
    options: Mapping[str, Any]
    name: str
    study: str | None

    @property
    def compares(self) -> bool:
        """Returns whether the study will have results.csv and report.html."""
        return self.verb in ("study", "evaluate", "compare")

    def line(self, python: str) -> str:
        """Returns the command for a shell, in a folder that holds the code."""
        options = ["--config", json.dumps(self.options, default=as_json)] if self.options else []
        return shlex.join([python, "-m", "jobs.cli", self.verb, *options])


def prepare_command(words: list[str], here: bool) -> Command:
    """Checks a command line and makes its paths fit for a cluster.

    With --print-config among the words, it prints the verb's options and exits.

    Args:
        words: The verb and its arguments, as typed.
        here: Whether the cluster is this machine alone.

    Raises:
        UserError: If the verb would refuse it, as far as that can be known from afar, for relative paths on other
            machines, and for keys among the options.
    """
    verb = words[0]
    if verb not in PATH_OPTIONS:
        raise UserError(f"no verb {verb!r} to submit: {choose(verb, PATH_OPTIONS)}")
    arguments = load_plugins(words[1:])  # the files are sent along, and found there without the option
    module = import_module(VERBS[verb][0])
    kind = module.options_type() if hasattr(module, "options_type") else module.Options
    options, given = parse_given(kind, verb, arguments)
    values = {name: value for name, value in values_of(options).items() if name != "plugin"}
    for text in _texts(values):
        _check_open(text)
    if options.print_config:
        parse(kind, verb, arguments)
    if verb != "evaluate":  # which completes its options by the study, and that lies on the cluster
        options.resolved(given)
    _check(options)
    changed = {name: _resolved(name, values[name], here) for name in PATH_OPTIONS[verb] if values[name] is not None}
    if values.get("workers") == "0" and "workers" not in given:
        changed["workers"] = "1"  # 0 would train on the head's machine, beside what runs the cluster
    always = {field.name for field in flat(kind) if field.role == "positional"} | {kind.choice_key}
    sent = {
        name: changed.get(name, value)
        for name, value in values.items()
        if name in given | always or changed.get(name, value) != value
    }
    return Command(verb, sent, *_name_and_study(verb, values | changed))


def _check(options: Any) -> None:
    """Checks each part of the options, except that data and studies lie on the cluster and are not looked for."""
    if hasattr(options, "runtime"):
        replace(options.runtime, wandb="off").checked()  # who is logged in at W&B counts there, not here
        Study.open("runs", options.runtime.name or "runs")
    study: Any = getattr(options, "study", None)
    if evaluation := getattr(options, "evaluation", None):
        transfer = study.transfer if isinstance(study, StudyConfig) else evaluation.transfer
        replace(evaluation, transfer=transfer).check()
    if isinstance(study, StudyConfig):
        study.check()
    if hasattr(options, "studies"):
        options.check()
    if hasattr(options, "packing"):
        options.packing.checked()
    if hasattr(options, "effort"):
        options.effort.checked()


def _texts(values: Mapping[str, Any]) -> Iterator[str]:
    """Yields every text among the options, and what follows a "=" in it, as in --encoder timm:NAME=FILE."""
    for value in values.values():
        for text in value if isinstance(value, tuple) else (value,):
            text = text.data if isinstance(text, TransferEntry) else text
            if isinstance(text, str):
                yield text
                yield text.partition("=")[2]


def _check_open(url: str) -> None:
    """Raises UserError for a URL with a key in it: all who see the cluster's dashboard can read the options."""
    if is_url(url):
        parts = urlsplit(url)
        if parts.password is not None or (parts.scheme in ("http", "https") and parts.query):
            raise UserError(
                f"{parts.scheme}://{parts.hostname}{parts.path}: give keys in the environment of the "
                "cluster's machines, not in a URL, which its dashboard shows to all"
            )


def _resolved(name: str, value: Any, here: bool) -> Any:
    """Returns the value of a path option, of which several may be given, written so that it means the same on the
    cluster."""
    if isinstance(value, tuple):
        return tuple(_resolved(name, one, here) for one in value)
    if isinstance(value, TransferEntry):
        return replace(value, data=_absolute("data", value.data, here))
    if name in ("encoder", "init"):
        return with_place(value, lambda place: _absolute(name, place, here))
    return _absolute(name, value, here)


def _absolute(name: str, value: str, here: bool) -> str:
    """Returns the same place, written so that it means the same on the cluster. Raises UserError if it cannot be."""
    known = name in DATASETS and value in dataset_names()
    if known or is_url(value) or os.path.isabs(value) or value.startswith("~"):
        return value
    if here:
        return os.path.abspath(value)
    option = LABELS.get(name) or f"--{name}".replace("_", "-")
    raise UserError(
        f"{option} {value}: a relative path would lie in a temporary folder of one of the cluster's "
        "machines: give an absolute path that all of them share, or a URL such as s3://BUCKET/FOLDER"
    )


def _name_and_study(verb: str, values: Mapping[str, Any]) -> tuple[str, str | None]:
    """Returns a name for the job, and the study that it works on, from the values of all options."""
    if verb == "compare":
        first = values["studies"][0].rstrip("/")
        study = first if len(values["studies"]) == 1 else f"{first.rpartition('/')[0] or '.'}/{values['name']}"
        return study.rsplit("/", 1)[-1], study
    if verb == "evaluate":
        return values["study"].rstrip("/").rsplit("/", 1)[-1], values["study"]
    if "storage" not in values:
        return verb, None
    name = values["name"] or ("sweep" if verb == "sweep" else Path(values["data"]).name)
    return name, f"{values['storage'].rstrip('/')}/{name}"
