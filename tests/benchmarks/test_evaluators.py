"""The benchmark of kNN and the linear probe: both sides do the work that they are timed for."""

import json

import pytest

from benchmarks.evaluators import CALLS, Size, features, main


@pytest.mark.parametrize("protocol", ["knn", "linear"])
def test_both_sides_classify_alike(protocol):
    subject = features(Size(images=600, queries=400, width=512, classes=4, threads=1))
    here, there = (CALLS[protocol, who](subject) for who in ("tilespin", "scikit-learn"))
    assert here == pytest.approx(there, abs=0.04) and 0.4 < here < 0.99


@pytest.mark.slow
def test_it_runs_and_says_what_it_measured(tmp_path, monkeypatch):
    options = f"--images 200 --queries 40 --width 8 --classes 3 --protocols knn --into {tmp_path}"
    monkeypatch.setattr("sys.argv", ["evaluators", *options.split()])
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # and as they were again afterwards
    main()
    (path,) = tmp_path.glob("*-evaluators-*.json")
    told = json.loads(path.read_text())
    assert [line["who"] for line in told["lines"]] == ["tilespin", "scikit-learn"]
    for line in told["lines"]:
        assert line["seconds"] > 0 and line["peak_mib"] > line["grown_mib"] >= 0
        assert line["features_mib"] == pytest.approx((200 + 5 + 40) * 8 * 4 / 2**20)
