"""The report in W&B, as the real client builds it and a server receives it."""

import json

import pytest
from wandb_server import Server

from jobs.layout import Study
from jobs.webreport import save
from test_results import rows  # noqa: F401  a fixture


def test_try(rows, tmp_path, monkeypatch):
    study = Study(tmp_path / "demo")
    study.describe()
    with Server() as server:
        for k, v in server.environment().items():
            monkeypatch.setenv(k, v)
        try:
            print(save(study, rows, "me", "tilespin"))
        finally:
            print(server.unknown)
