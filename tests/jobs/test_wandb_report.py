"""The report in W&B, as the real client builds it and a server receives it."""

import json

import pytest
from support.comparison import three
from support.wandb_server import Server

from jobs.report.comparison import by_dataset
from jobs.report.wandb_report import save
from jobs.study.folder import Study

pytestmark = [pytest.mark.network, pytest.mark.slow]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the client's own
def test_it_is_made_once_and_then_renewed(tmp_path, monkeypatch):
    study, rows = Study(tmp_path / "demo"), three()
    study.describe()
    with Server() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        url = save(study, by_dataset(rows), "me", "tilespin")
        (first,) = (json.loads(view["spec"]) for view in server.views.values())
        assert save(study, by_dataset(rows[:3]), "me", "tilespin") == url
        (view,) = server.views.values()
    assert view["displayName"] == "Tilespin: demo" and (view["entityName"], view["projectName"]) == ("me", "tilespin")
    assert url.startswith(server.url) and url.endswith("Vmlldzo0")
    said, renewed = json.dumps(first), view["spec"]
    assert (
        "Within noise of it" in said
        and "Within noise of it" not in renewed
        and "Best task by linear: rotnet" in renewed
    )
    for kind in ("pretrain", "compare", "encoders"):
        assert kind in said
    assert said.count('"value": "demo"') == 4 and "/linear/top1" in said and "train/loss" in said
