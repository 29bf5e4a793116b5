"""Says which files a cluster is sent: the program's own packages, the files of plug-ins, and nothing else.

Data, results, keys and whatever else lies beside them are not sent.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
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
PLUGINS = "TILESPIN_PLUGINS"  # environment variable: the plug-ins' files, separated as in PATH
PLUGIN_DIGESTS = "TILESPIN_PLUGIN_DIGESTS"  # environment variable that goes with it, see ssl_core/plugin_files.py
PLUGIN_FOLDER = "plugins"  # what these files lie in on the cluster, beside the packages
MAX_BYTES = 512 << 20  # bytes; what one message to Ray's head can hold


def working_dir_options() -> dict:
    """Returns the part of a Ray runtime environment that ships this checkout's code: {"working_dir", "excludes"}."""
    if files := plugin_files():
        return {"working_dir": _staged(files).name, "excludes": []}
    return {"working_dir": str(ROOT), "excludes": list(EXCLUDES)}


def plugin_files() -> tuple[str, ...]:
    """Returns the paths of the plug-ins' files that this process uses."""
    return tuple(filter(None, os.environ.get(PLUGINS, "").split(os.pathsep)))


def plugin_variables() -> dict[str, str]:
    """Returns the environment variables by which processes on the cluster find these files."""
    if not (files := plugin_files()):
        return {}
    sent = os.pathsep.join(f"{PLUGIN_FOLDER}/{Path(file).name}" for file in files)
    digests = {PLUGIN_DIGESTS: os.environ[PLUGIN_DIGESTS]} if PLUGIN_DIGESTS in os.environ else {}
    return {PLUGINS: sent, **digests}


@cache
def _staged(plugins: tuple[str, ...]) -> tempfile.TemporaryDirectory:
    """Copies all that is sent into one folder, as Ray wants it; this process removes the folder when it ends."""
    folder = tempfile.TemporaryDirectory(prefix="tilespin-code-")
    targets = {Path(PLUGIN_FOLDER, Path(file).name): Path(file) for file in plugins}
    targets |= {path.relative_to(ROOT): path for path in _code_files()}
    for target, path in targets.items():
        (Path(folder.name) / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, Path(folder.name) / target)
    return folder


def runtime_env() -> dict:
    """Returns what a driver that joins a cluster gives ray.init: `working_dir_options()`, and the plug-ins' variables.

    Within a submitted job it is empty, since the job's workers inherit the job's own environment.
    """
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return {}
    return {**working_dir_options(), **({"env_vars": variables} if (variables := plugin_variables()) else {})}


def uploaded_files() -> Iterator[Path]:
    """Yields the files that a cluster is sent: those that EXCLUDES leaves, and those of plug-ins."""
    yield from map(Path, plugin_files())
    yield from _code_files()


def _code_files() -> Iterator[Path]:
    for package in PACKAGES:
        for folder, folders, files in os.walk(ROOT / package):
            folders[:] = sorted(name for name in folders if not _is_excluded(name))
            yield from (Path(folder, name) for name in sorted(files) if not _is_excluded(name))


def _is_excluded(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in (*IGNORED, *SECRETS))
