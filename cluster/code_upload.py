"""What a cluster is given of this checkout: the program's own folders and nothing else, so that data, results, keys
and whatever else lies beside them stay at home."""

import os
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

HOME = Path(__file__).parents[1]
ROOMS = ("cluster", "jobs", "kernels", "ssl_core")
# Names of files and folders that are left out wherever they lie within the rooms
LEFTOVERS = (".*", "__pycache__", "*.pyc", "*.egg-info", "runs", "wandb")
KEYS = (
    ".env*",
    ".netrc",
    "_netrc",
    ".pypirc",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.jks",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    "*credentials*",
    "kubeconfig*",
    "*.kubeconfig",
)
# In gitignore's language, where the last pattern that fits decides: of the top only the rooms ("." is the top itself)
EXCLUDES = ("/*", ".*", "!/.", *(f"!/{room}" for room in ROOMS), *LEFTOVERS[1:], *KEYS)
LIMIT = 512 << 20  # bytes; what one message to Ray's head can hold


def package() -> dict:
    """The part of a Ray runtime environment that ships this checkout's code: {"working_dir", "excludes"}."""
    return {"working_dir": str(HOME), "excludes": list(EXCLUDES)}


def runtime_env() -> dict:
    """What a driver gives ray.init when it joins a cluster: `package()`; nothing within a submitted job, whose
    workers inherit the job's own."""
    return {} if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else package()


def shipped() -> Iterator[Path]:
    """The files that a cluster is given, as EXCLUDES say."""
    for room in ROOMS:
        for folder, folders, files in os.walk(HOME / room):
            folders[:] = sorted(name for name in folders if not _stays(name))
            yield from (Path(folder, name) for name in sorted(files) if not _stays(name))


def _stays(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in (*LEFTOVERS, *KEYS))
