"""The first call on a machine compiles, and says so; the next finds the result on the disk."""

import os
import pathlib
import subprocess
import sys

CALL = """
import torch
from kernels.sampling import draw
draw(torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64), seed=0, stream=0, count=1)
"""


def test_compiling_is_said_once_and_kept(tmp_path):
    root = pathlib.Path(__file__).parents[2]
    # PATH is empty: no C compiler is needed
    environment = dict(os.environ, NUMBA_CACHE_DIR=str(tmp_path), PYTHONPATH=str(root), OMP_NUM_THREADS="1", PATH="")
    said = [
        subprocess.run([sys.executable, "-c", CALL], env=environment, capture_output=True, text=True, check=True).stderr
        for _ in range(2)
    ]
    assert said[0].count("compiling kernels") == 1
    assert said[1] == ""
