"""The task, protocol and data source of docs/extending.md, in files and in an installed package."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import ssl_core.plugin_files as plugin_files
from ssl_core.data.dataset import open_source
from support.command import ROOT

EXTENDING = (ROOT / "docs" / "extending.md").read_text()
TASK, PROTOCOL, SOURCE = re.findall(r"```python\n(\"{3}.*?)```", EXTENDING, re.DOTALL)  # as people are told

ENTRIES = {
    "tilespin.tasks": {"flip": "striped.task:Flip"},
    "tilespin.protocols": {"norm": "striped.protocol:Norm"},
    "tilespin.sources": {"stripes": "striped.source:Stripes"},
}


def write_striped(site: Path) -> None:
    """Writes a package with the task `flip`, the protocol `norm` and the data source `stripes`."""
    write_package(site, "striped", {"task": TASK, "protocol": PROTOCOL, "source": SOURCE}, ENTRIES)


def write_package(
    site: Path, name: str, modules: dict[str, str], entries: dict[str, dict[str, str]], version: str = "1.0"
) -> None:
    """Writes a package as pip leaves it in a folder of sys.path.

    Args:
        site: The folder.
        name: The package's.
        modules: Source by the name of each module in it.
        entries: By group of entry points, their values by their names.
        version: The package's.
    """
    (site / name).mkdir(parents=True)
    (site / name / "__init__.py").write_text("")
    for module, source in modules.items():
        (site / name / f"{module}.py").write_text(source)
    about = site / f"{name}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = (f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in of.items()) for group, of in entries.items())
    (about / "entry_points.txt").write_text("\n".join(groups))


def forget_modules(*names: str) -> None:
    """Lets the next import of these, and of what is in them, begin anew."""
    for module in list(sys.modules):
        if any(module == name or module.startswith(f"{name}.") for name in names):
            del sys.modules[module]


@contextmanager
def plugged_in(folder: Path) -> Iterator[Path]:
    """A folder of packages that this process imports, and no files of plug-ins, as long as the block lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        for name in (plugin_files.VARIABLE, plugin_files.DIGESTS):
            patch.setenv(name, "")
        yield folder
    forget_files()
    forget_modules(*(path.name for path in folder.iterdir()))
    open_source.cache_clear()


def forget_files() -> None:
    """What another process knows of the files that this one has imported: nothing."""
    forget_modules(*(f"{plugin_files.__name__}.{name}" for name in plugin_files._digests))
    plugin_files._digests.clear()
    os.environ[plugin_files.DIGESTS] = ""
