"""Turns tyro's errors about arguments, of forty lines each, into one line with the name that is probably wanted."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from jobs.config.options import flags_of, flags_of_choices
from ssl_core.errors import UserError, choose, closest

try:
    # private: where another version has none, or tells of something else, what tyro itself prints has to do
    import tyro._errors as events
except ImportError:
    events = None


def refuse_in_one_line(config: Any, verb: str, arguments: list[str]) -> AbstractContextManager:
    """Returns a context manager in which tyro's errors are raised as UserError.

    Args:
        config: The type that is parsed.
        verb: The verb, which messages name.
        arguments: The command line after the verb.
    """
    if events is None:
        return nullcontext()

    def refuse(event: Any) -> None:
        if line := _refusal(event, config, verb, arguments):
            raise UserError(line)

    return events.on_parse_error(refuse)


def _refusal(event: Any, config: Any, verb: str, arguments: list[str]) -> str | None:
    """Returns the message for an event of tyro's parser, or None if its kind is unknown here."""
    kind = type(event).__name__
    if kind == "UnrecognizedArgs":
        return _unknown_option(event.tokens, config, verb, arguments)
    if kind in ("MissingArgs", "BadValue") and (unknown := _unrecognized(config, arguments)):  # which is what began it
        return _unknown_option(unknown, config, verb, arguments)
    if kind == "MissingArgs":
        missing = [one.arg.lowered.name_or_flags[0].rpartition(".")[2].upper() for one in event.missing_arguments]
        return f"{verb}: expected {' '.join(missing)}; tilespin {verb} --help explains it"
    if kind == "MissingSubcommand":
        return f"{verb}: expected one of {', '.join(event.subcommand_spec.parser_from_name)}"
    if kind == "InvalidChoice":
        return f"{_argument_name(event.argument)} {event.value}: {choose(event.value, event.choices)}"
    if kind == "BadValue":
        return f"{_argument_name(event.argument)}: expected {event.argument.lowered.metavar}"
    if kind == "InstantiationFailure" and event.argument is not None:
        return f"{_argument_name(event.argument)}: expected {event.argument.lowered.metavar}; {event.message}"
    return None


def _unrecognized(config: Any, arguments: list[str]) -> list[str]:
    """Returns the options that neither the verb nor any of its sub-commands has."""
    known = set(flags_of(config)).union(*flags_of_choices(config).values())
    return [word for word in arguments if word.startswith("--") and _as_option(word) not in known]


def _as_option(word: str) -> str:
    return word.partition("=")[0].replace("_", "-")


def _argument_name(argument: Any) -> str:
    return argument.lowered.name_or_flags[0]


def _unknown_option(tokens: list[str], config: Any, verb: str, arguments: list[str]) -> str:
    """Returns the message for the first of the words and options that do not belong there."""
    if "--" in arguments:
        return f"{verb}: '--' is one word too many"
    own, choices = flags_of(config), flags_of_choices(config)
    chosen = next((word for word in arguments if word in choices and word not in tokens), None)
    if choices and not chosen:  # then the options of all choices are unknown, too
        words = [word for word in tokens if not word.startswith("-")]
        close = [word for word in words if closest(word, choices)]
        if close or not tokens[0].startswith("-"):
            word = (close or words)[0]
            return f"{verb} {word}: {choose(word, choices)}"
        return f"{verb}: expected one of {', '.join(choices)}"
    token = next((token for token in tokens if token.startswith("-")), tokens[0])
    if not token.startswith("-"):
        given = next((word.partition("=")[0] for word in arguments if word.endswith(f"={token}")), None)
        return f"{given} takes no value" if given else f"{verb}: {token!r} is one word too many"
    option = _as_option(token)
    if others := [name for name, options in choices.items() if option in options]:
        return f"{chosen} has no option {option}: {', '.join(others)} have it"
    if close := closest(option, own | (choices[chosen] if chosen else {})):
        return f"no option {option}: did you mean {close}?"
    return f"no option {option}: {' '.join(filter(None, ('tilespin', verb, chosen)))} --help lists those there are"
