"""Finds out whether Weights & Biases is wanted, and whether it answers."""

import os
import sys
import threading
from typing import Literal

from cluster.child_processes import child_processes, kill_processes
from ssl_core.errors import UserError, choose

Mode = Literal["auto", "online", "offline", "off"]
DecidedMode = Literal["online", "offline", "off"]

# The client flushes its file every 15 s; a killed run would lose as much. Its chatter would go over the screen.
SETTINGS = {"WANDB_SILENT": "true", "WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL": "1", "WANDB_ERROR_REPORTING": "false"}
# What WANDB_MODE may be: the client's modes, of which it takes no other spelling; each of our runs has one process
MODES: dict[str, DecidedMode] = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "off",
}
CORE = b"wandb-core"  # the client's own process
END_SECONDS = 20.0  # that it has to end in
YES, NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


def decide_mode(mode: Mode) -> DecidedMode:
    """Decides how to track: as `resolve_mode`, but offline if W&B does not answer or refuses the key.

    That is found out here, once for all jobs of a command, and printed in one line on stderr.

    Raises:
        UserError: If WANDB_DISABLED or WANDB_MODE is misspelled.
    """
    found = resolve_mode(mode)
    if found == "online" and (why := why_no_answer()):
        return _offline(why)
    return found


def resolve_mode(mode: Mode) -> DecidedMode:
    """Decides what "auto" stands for: what WANDB_DISABLED and WANDB_MODE say, else online if the user is logged in,
    else offline.

    Raises:
        UserError: If one of them is misspelled.
    """
    if mode != "auto":
        return mode
    disabled, asked = (os.environ.get(name, "").strip().lower() for name in ("WANDB_DISABLED", "WANDB_MODE"))
    if disabled not in YES + NO:
        raise UserError(f"WANDB_DISABLED is {disabled!r}, expected true or false")
    if asked and asked not in MODES:
        raise UserError(f"WANDB_MODE is {asked!r}: {choose(asked, MODES)}")
    if disabled in YES:
        return "off"
    if asked:
        return MODES[asked]
    try:
        return "online" if wandb_client().login(prompt=False) else "offline"
    except Exception as error:  # a client that cannot answer must not stop a job
        return _offline(_one_line(error))


def why_no_answer() -> str | None:
    """Returns why nothing can be uploaded now, or None if W&B answers and takes the key. Takes some ten seconds at
    most."""
    try:
        wandb, mode = wandb_client(), os.environ.get("WANDB_MODE")
        os.environ["WANDB_MODE"] = "online"  # an option goes before a variable, by which nobody could log in offline
        try:
            known = wandb.login(prompt=False, verify=True)
        finally:
            os.environ.pop("WANDB_MODE") if mode is None else os.environ.update(WANDB_MODE=mode)
    except Exception as error:
        return _one_line(error)
    finally:
        end_wandb_client()  # which would go on trying
    return None if known else f"not logged in to W&B at {_server_address()} (WANDB_API_KEY, or wandb login)"


def wandb_client():
    """Imports wandb and returns it, after it has corrected the environment variables that wandb would fail on."""
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    mode = os.environ.pop("WANDB_MODE", "").strip().lower()
    if mode in MODES:
        os.environ["WANDB_MODE"] = mode
    import wandb

    return wandb


def _offline(why: str) -> DecidedMode:
    print(f"tilespin: {why}; what this command does is tracked offline", file=sys.stderr, flush=True)
    return "offline"


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    late = "did not respond in time" in text  # of the client's own process, which waits for the server
    return f"W&B does not answer at {_server_address()}" if late else f"W&B: {text}"


def _server_address() -> str:
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")


def end_wandb_client() -> None:
    """Ends the client's own process, after END_SECONDS by force.

    The client waits for it without an end, and it may go on asking a server that does not answer. Whoever reads what
    this command writes would wait as well.
    """
    import wandb

    ending = threading.Thread(target=wandb.teardown, daemon=True)
    ending.start()
    ending.join(END_SECONDS)
    if ending.is_alive():
        kill_processes(child_processes(CORE))
        ending.join()
