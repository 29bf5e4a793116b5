"""Says where everything of a study lies on disk: a public contract, described in docs/design.md."""

import json
import os
import secrets
import subprocess
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jobs.study.lock as study_locks
from ssl_core.errors import TilespinError, UserError
from ssl_core.storage.files import exists, glob_files, open_path, write_text
from ssl_core.storage.study_record import StudyRecord


class JobsFailed(TilespinError, RuntimeError):
    """Says that some jobs failed and the others are done. The command line exits with 1."""


class Terminated(TilespinError, RuntimeError):
    """Says that a signal asked this process to stop, and that it has. The command line exits with 128 + its number."""

    def __init__(self, signal: int):
        super().__init__("stopped by a signal: what ran was saved; the same command continues")
        self.exit_code = 128 + signal


class Study:
    """Names the files in the folder <storage>/<name>/ of one study: a path, or a URL that fsspec opens."""

    def __init__(self, root: str | Path):
        self.root = open_path(str(root))

    @classmethod
    def open(cls, storage: str, name: str) -> "Study":
        """Returns the study called `name` in the folder or URL `storage`, which need not exist yet.

        Raises:
            UserError: If the URL cannot be opened, or the name is no plain folder name.
        """
        if not name or name in (".", "..") or "/" in name:
            raise UserError(f"--name {name!r}: expected a plain folder name")
        return cls(open_path(storage) / name)

    @classmethod
    def existing(cls, folder: str) -> "Study":
        """Returns the study in `folder`. Raises UserError if there is none."""
        study = cls(folder)
        if not exists(study.file):
            raise UserError(f"{folder}: no study here (expected {study.file})")
        return study

    @property
    def file(self) -> Path:
        """Returns the path of study.json, which describes the study."""
        return self.root / "study.json"

    @property
    def results(self) -> Path:
        """Returns the path of results.csv."""
        return self.root / "results.csv"

    @property
    def report(self) -> Path:
        """Returns the path of report.html."""
        return self.root / "report.html"

    @property
    def logs(self) -> Path:
        """Returns the folder of warnings and logs."""
        return self.root / "logs"

    @property
    def token(self) -> str:
        """Returns a random word that makes this study's W&B run ids its own."""
        return self.read().token

    def run(self, name: str) -> Path:
        """Returns the folder of a pretraining run."""
        return self.root / "pretrain" / name

    def run_at(self, name: str, step: int) -> Path:
        """Returns the folder of the encoder that a pretraining run had after this many steps."""
        return self.run(name) / "steps" / f"{step:09d}"

    def external(self, name: str) -> Path:
        """Returns the folder of an encoder that was not trained here."""
        return self.root / "encoders" / name

    def runs(self) -> list[Path]:
        """Returns the folders of finished pretraining runs."""
        return [path.parent for path in glob_files(self.root, "pretrain/*/encoder.json")]

    def runs_at(self) -> list[Path]:
        """Returns the folders of encoders that finished pretraining runs had before their last step."""
        finished = set(self.runs())
        kept = (path.parent for path in glob_files(self.root, "pretrain/*/steps/*/encoder.json"))
        return [folder for folder in kept if folder.parent.parent in finished]

    def evaluation(self, digest: str, protocol: str, hash: str) -> Path:
        """Returns the path of one evaluation's record.

        Args:
            digest: The digest of the encoder's weights.
            protocol: The protocol's name.
            hash: A hash of all else that the result depends on.
        """
        return self.root / "evaluate" / digest[:16] / f"{protocol}-{hash}.json"

    def failure(self, job: str, text: str) -> Path:
        """Keeps the traceback of a job, and returns where."""
        path = self.root / "failures" / f"{job.replace('/', '-')}.txt"
        write_text(path, text)
        return path

    def read(self) -> StudyRecord:
        """Returns what study.json says. Raises FileNotFoundError if there is none, and UserError for a damaged one."""
        return StudyRecord.read(self.file)

    def describe(self, **what: Any) -> StudyRecord:
        """Writes study.json with these fields changed, and returns all of it. The token in it is made once."""
        now = {"tilespin": version("tilespin"), "commit": commit()}
        if not exists(self.file):
            new = StudyRecord(token=secrets.token_hex(3), **now, **what)
        else:
            old = self.read()
            new = replace(old, **now, **what)
            if json.dumps(asdict(new)) == json.dumps(asdict(old)):
                return old
        new.write(self.file)
        return new

    def lock(self) -> AbstractContextManager[None]:
        """Keeps other drivers out while the block runs. Raises UserError if another driver works in this folder."""
        return study_locks.study_lock(self.root)


def commit() -> str | None:
    """Returns the git commit of this program, with + if files differ from it, or None outside a checkout.

    A cluster gets the files without git, so its jobs are given the commit in TILESPIN_COMMIT.
    """
    if given := os.environ.get("TILESPIN_COMMIT"):
        return given
    try:
        commit = _run_git("rev-parse", "--short=12", "HEAD")
        changed = _run_git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def _run_git(*arguments: str) -> str:
    """Returns what git prints in the folder of this program. Raises OSError or SubprocessError."""
    here = Path(__file__).parent
    done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
