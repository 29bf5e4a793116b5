"""The notebook in examples/: its cells run one after the other, and what it shows has been run."""

import json

import matplotlib.pyplot as plt
import pytest
from support.command import ROOT

pytestmark = pytest.mark.slow


def test_the_notebook_runs_and_shows_what_it_found(tmp_path, monkeypatch):
    book = json.loads((ROOT / "examples/study.ipynb").read_text())
    cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert len(cells) == 10 and all(cell["outputs"] for cell in cells)
    assert [cell["execution_count"] for cell in cells] == list(range(1, 11))
    monkeypatch.chdir(tmp_path)
    scope: dict = {"__name__": "__main__"}
    try:
        for cell in cells:  # in one process and without a kernel, with a budget that a test can pay
            exec("".join(cell["source"]).replace("budget=200.0", "budget=10.0"), scope)
    finally:
        plt.close("all")
    assert {"rotnet", "jigsaw", "context", "supervised", "random-init"} <= set(scope["table"].task)
    assert scope["study"].report.exists() and len(scope["maps"]) == 3
