"""A pretraining as W&B sees it, in a process that tests can kill: rows of step, loss and restarts.

support.tracked MODE FOLDER NAME=VALUE...: goes on from step `first`, for the `restarts`th time, up to step `last`, a
row
every `pause` seconds and a checkpoint every 50. At the checkpoint after step `hold` it stays until a line comes on
stdin; after step `kill` it is killed when one comes; after `outage` the server answers nothing for a while; after
`core` W&B's own process is killed. W&B may take `patience` seconds to start.
"""

import json
import os
import signal
import sys
import threading
import time
import urllib.request
from pathlib import Path

from PIL import Image
from upath import UPath

import jobs.tracking.tracker as tracking

OPTIONS = {
    "first": 0,
    "last": 300,
    "restarts": 0,
    "pause": 0.002,
    "kill": 0,
    "outage": 0,
    "core": 0,
    "hold": 0,
    "patience": 120,
}


def row(step: int, restarts: int) -> dict:
    return {"train/step": step, "train/loss": 1 / step, "train/restarts": restarts}


def main(mode: str, folder: Path, options: dict) -> None:
    first, last, restarts = int(options["first"]), int(options["last"]), int(options["restarts"])
    started = time.monotonic()
    tracking.INIT_SECONDS = options["patience"]
    tracker = tracking.Tracker(
        mode,
        folder,
        id="rotnet-1",
        study="s",
        job_type="pretrain",
        name="rotnet",
        config={"batch": 8},
        step="train/step",
    )
    said = {"held": tracker.uploaded_step, "start": time.monotonic() - started, "longest": 0.0}
    if restarts:
        tracker.restarted(restarts, first, "node lost")
    places = _places(folder / "restarts", restarts, first)
    for step in range(1, last + 1):
        if step > first:
            time.sleep(options["pause"])
        began = time.monotonic()
        tracker.log(row(step, sum(step > place for place in places)), step)
        if step > first and step % 50 == 0:
            tracker.keep()
        if step == options["hold"]:
            _stay(tracker)
        said["longest"] = max(said["longest"], time.monotonic() - began)
        if step == options["outage"]:
            urllib.request.urlopen(f"{os.environ['WANDB_BASE_URL']}/outage").read()
        if step == options["core"]:
            _kill_children()
        if step == options["kill"]:
            print(json.dumps(said), flush=True)
            sys.stdin.readline()
            os.kill(os.getpid(), signal.SIGKILL)
    picture = folder / "samples.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    with picture.open("wb") as file:
        Image.new("RGB", (8, 8)).save(file, "png")
    tracker.image("samples", picture, last + 1)
    (folder / "encoder.safetensors").write_bytes(b"weights")
    tracker.artifact("encoder-rotnet", "encoder", folder / "encoder.safetensors", {"digest": "1"})
    tracker.summary({"digest": "1"})
    tracker.finish()
    print(json.dumps(said), flush=True)


def _places(file: Path, restarts: int, first: int) -> list[int]:
    """The steps after which attempts went on, this one's last: metrics.jsonl has them, for its rows to be counted."""
    earlier = json.loads(file.read_text()) if file.exists() else []
    places = [*earlier[: restarts - 1], first] if restarts else []
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(places))
    return places


def _stay(tracker: tracking.Tracker) -> None:
    """W&B writes to the disk when it comes to it, and only what is there can be kept."""
    told = threading.Thread(target=sys.stdin.readline)
    told.start()
    while told.is_alive():
        tracker.keep()
        told.join(0.1)


def _kill_children() -> None:
    for child in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        for pid in child.read_text().split():
            os.kill(int(pid), signal.SIGKILL)


if __name__ == "__main__":
    place = sys.argv[2]
    given = dict(argument.split("=") for argument in sys.argv[3:])
    main(
        sys.argv[1],
        UPath(place) if "://" in place else Path(place),
        OPTIONS | {key: float(value) for key, value in given.items()},
    )
