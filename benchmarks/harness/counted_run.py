"""`python -m benchmarks.harness.counted_run FILE pretrain …`: a training that keeps the number of its steps in FILE."""

import mmap
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import jobs.pretraining.worker
from jobs.cli import run_command
from ssl_core.train import Step, train

LAYOUT = "<q"


def read_count(path: Path) -> int:
    """Steps until now; 0 before the first."""
    found = path.read_bytes() if path.exists() else b""
    return struct.unpack(LAYOUT, found)[0] if found else 0


def main(path: Path, arguments: list[str]) -> None:
    path.write_bytes(struct.pack(LAYOUT, 0))
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 8) as shared:

        def counted(*given) -> Iterator[Step]:
            for step in train(*given):
                shared[:] = struct.pack(LAYOUT, step.number)
                yield step

        with patch.object(jobs.pretraining.worker, "train", counted):
            run_command(arguments)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
