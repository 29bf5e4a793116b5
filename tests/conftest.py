"""What tests share: the command line as a user runs it, and small folders of real image files."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.command import ROOT, run_forked
from support.head import Head, head

from cluster.session import use_own_token
from kernels import cache

# pytest-xdist has its workers ignore interrupts, and shells and nohup what runs in the background: so would all that
# tests start
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

# Ray reads its settings when it is imported, which some tests do long before others start it with a token
use_own_token()

# Numba reads this when it is imported. Compiled loops are those of the sources, wherever a test has other caches: each
# folder that begins empty would cost every process in it some ten seconds of compiling
os.environ.setdefault("NUMBA_CACHE_DIR", str(cache.folder()))


# Files that take half a minute or more, the longest first
LONG = (
    *("test_readme", "test_submit", "test_scaling", "test_each_image_once", "test_conformance", "test_study"),
    *("test_plugins", "test_machine_code", "test_stops", "test_sweep", "test_transfer", "test_tune", "test_cli"),
    *("test_timm_studies", "test_s3", "test_storage", "test_embed_continues", "test_failing_store", "test_scheduler"),
    *("test_cpu_jit", "test_config_file", "test_caveats", "test_shared_cache"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first, so that none of them is left for the end, when the other processes have nothing to do."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what needs a GPU where there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a GPU")


@pytest.fixture(scope="session")
def tilespin() -> Callable[..., subprocess.CompletedProcess]:
    """Runs the command `tilespin` with arguments in a process of its own."""

    def run(*arguments, code: int = 0, timeout: int = 900, cwd: Path = ROOT) -> subprocess.CompletedProcess:
        done = run_forked(*arguments, timeout=timeout, cwd=cwd)
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="module")
def cluster() -> Iterator[Head]:
    """A Ray cluster of one machine to submit to. It takes some ten seconds to start, and for as long as it is there a
    tenth of a core: each file that needs one has its own."""
    with head() as one:
        yield one


def pattern(kind: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """[size, size, 3] uint8: one of four textures in a random color and phase, darker towards the bottom."""
    y, x = np.mgrid[:size, :size] / size
    phase, waves = rng.uniform(0, 6, 2), rng.uniform(2.5, 4)
    texture = [
        np.sin(6.28 * waves * x + phase[0]),
        np.sin(6.28 * waves * y + phase[0]),
        np.sin(6.28 * waves * x + phase[0]) * np.sin(6.28 * waves * y + phase[1]),
        np.sin(6.28 * waves * np.hypot(x - 0.5, y - 0.5) + phase[0]),
    ][kind]
    shade = (0.55 + 0.4 * texture)[..., None] * rng.uniform(0.4, 1, 3) * (1.1 - 0.7 * y)[..., None]
    return (255 * np.clip(shade + rng.normal(0, 0.03, (size, size, 3)), 0, 1)).astype(np.uint8)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory) -> Path:
    """A labeled folder: four classes of 60 PNG images of 32 px."""
    root, rng = tmp_path_factory.mktemp("shapes"), np.random.default_rng(0)
    for kind, name in enumerate(("rings", "rows", "grid", "columns")):
        (root / name).mkdir()
        for i in range(60):
            Image.fromarray(pattern(kind, 32, rng)).save(root / name / f"{i:03d}.png")
    return root


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """A flat, unlabeled folder: 20 JPEGs of mixed sizes and shapes, and three files that are none."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(1)
    for i in range(20):
        image = Image.fromarray(pattern(i % 4, int(rng.integers(120, 300)), rng))
        image = image.crop((0, 0, image.width, image.height * 2 // 3) if i % 2 else (0, 0, 100, image.height))
        image.convert("L" if i == 3 else "CMYK" if i == 4 else "RGB").save(root / f"photo {i:02d} ü.jpg", quality=90)
    whole = (root / "photo 00 ü.jpg").read_bytes()
    (root / "truncated.jpg").write_bytes(whole[: len(whole) // 3])
    (root / "empty.jpg").write_bytes(b"")
    (root / "text.png").write_text("not an image")
    return root
