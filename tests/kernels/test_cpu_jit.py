"""The first call on a machine compiles, and says so; the next finds the result on the disk, wherever the code lies."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core.dispatcher import Dispatcher

from kernels import registry

ROOT = Path(__file__).parents[2]
CALL = """
import torch
from kernels.random import draw
draw(torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64), seed=0, stream=0, count=1)
"""


def called(place: Path, root: Path = ROOT) -> str:
    """What the call says, with loops kept in `place`, of the code in `root`."""
    # PATH is empty: no C compiler is needed
    environment = dict(os.environ, NUMBA_CACHE_DIR=str(place), PYTHONPATH=str(root), OMP_NUM_THREADS="1", PATH="")
    command = [sys.executable, "-c", CALL]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True).stderr


@pytest.mark.slow
def test_compiling_is_said_once_and_kept(tmp_path):
    """A copy of the code, as a cluster makes for a job, finds the same; other code does not, and what was compiled
    long ago goes."""
    for i in range(10):
        (tmp_path / "kept" / f"loops-{i}").mkdir(parents=True)
        os.utime(tmp_path / "kept" / f"loops-{i}", (i, i))
    assert called(tmp_path / "kept").count("compiling kernels") == 1
    shutil.copytree(ROOT / "kernels", tmp_path / "copy" / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    assert called(tmp_path / "kept", tmp_path / "copy") == ""
    with open(tmp_path / "copy" / "kernels" / "random" / "__init__.py", "a") as file:
        file.write("# another\n")
    assert called(tmp_path / "kept", tmp_path / "copy").count("compiling kernels") == 1
    left = {path.name for path in (tmp_path / "kept").iterdir()}
    assert len(left) == 9 and not {"loops-0", "loops-1", "loops-2"} & left and "loops-9" in left


def test_every_loop_is_kept_in_a_file_of_its_own():
    """Also where the files of two kernels have the same name, and loops in them the same name and line."""
    registry.kernels()
    modules = [module for name, module in sys.modules.items() if name.startswith("kernels.")]
    loops = {value for module in modules for value in vars(module).values() if isinstance(value, Dispatcher)}
    files = {loop._cache._cache_file._index_path for loop in loops}
    assert len(loops) > 20 and len(files) == len(loops)
    assert {Path(file).parent.name for file in files} >= {"kernels", "random", "rotate"}
