"""Says which files of this checkout a cluster is sent: the program's own packages and nothing else.

Data, results, keys and whatever else lies beside them are not sent.
"""

import os
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("cluster", "jobs", "kernels", "ssl_core")
# Names of files and folders that are left out wherever they lie within the rooms
IGNORED = (".*", "__pycache__", "*.pyc", "*.egg-info", "runs", "wandb")
SECRETS = (
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
EXCLUDES = ("/*", ".*", "!/.", *(f"!/{package}" for package in PACKAGES), *IGNORED[1:], *SECRETS)
MAX_BYTES = 512 << 20  # bytes; what one message to Ray's head can hold


def working_dir_options() -> dict:
    """Returns the part of a Ray runtime environment that ships this checkout's code: {"working_dir", "excludes"}."""
    return {"working_dir": str(ROOT), "excludes": list(EXCLUDES)}


def runtime_env() -> dict:
    """Returns what a driver gives ray.init when it joins a cluster: `working_dir_options()`.

    Within a submitted job it is empty, since the job's workers inherit the job's own environment.
    """
    return {} if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else working_dir_options()


def uploaded_files() -> Iterator[Path]:
    """Yields the files that a cluster is sent, which are those that EXCLUDES leaves."""
    for package in PACKAGES:
        for folder, folders, files in os.walk(ROOT / package):
            folders[:] = sorted(name for name in folders if not _is_excluded(name))
            yield from (Path(folder, name) for name in sorted(files) if not _is_excluded(name))


def _is_excluded(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in (*IGNORED, *SECRETS))
