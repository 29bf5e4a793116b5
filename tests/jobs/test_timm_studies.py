"""Encoders of timm through every task that can take them, to their probes and back into plain timm."""

import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO

import pytest
import torch

import jobs.commands.export
from jobs.api import Run
from jobs.api import study as run_study
from ssl_core.encoders.build import build, describe
from ssl_core.encoders.pretrained import load_saved
from ssl_core.encoders.tokens import TokenEncoder
from ssl_core.errors import UserError
from ssl_core.macs import encoder_macs
from ssl_core.storage.records import EvaluationRecord
from ssl_core.task import DataInfo, EncoderInfo, PretextModel, tasks

FAMILIES = (
    "test_vit",
    "vit_tiny_patch16_224",
    "vit_small_patch16_dinov3",
    "deit_tiny_distilled_patch16_224",
    "vit_tiny_r_s16_p8_224",
    "swin_tiny_patch4_window7_224",
    "convnext_atto",
    "mobilenetv3_small_050",
    "regnety_002",
    "coatnet_nano_rw_224",
    "xcit_nano_12_p8_224",
)
IN_EVERY_RUN = {("test_vit", 64)}  # timm's smallest
# Run by a fresh interpreter without this project: FILE, the call that builds the model, and the pixels' file
PLAIN_TIMM = """
import sys, timm, torch
file, call, images = sys.argv[1:]
model = eval(call)
holder = eval(call.rsplit(".", 1)[0]) if call.endswith((".model", ".body")) else model
if holder is not model:
    getattr(holder, call.rsplit(".", 1)[1]).load_state_dict(torch.load(file, weights_only=True))
else:
    model.load_state_dict(torch.load(file, weights_only=True))
holder.eval()
with torch.no_grad():
    x = torch.load(images, weights_only=True)
    found = holder(x) if "features_only" in call else holder.forward_features(x)
torch.save(found, images)
"""


def fits(task: str, encoder: torch.nn.Module, info: EncoderInfo, size: int) -> bool:
    """Returns whether a task can take an encoder; where it cannot, it says so in one line."""
    try:
        model = PretextModel(encoder, tasks()[task](tasks()[task].Config(), info, DataInfo(size, 4, 100)))
        return encoder_macs(model, size) > 0
    except UserError as error:
        assert "\n" not in str(error) and (info.name in str(error) or "choose another one" in str(error))
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param(name, size, marks=() if (name, size) in IN_EVERY_RUN else pytest.mark.encoders)
        for name in FAMILIES
        for size in (64, 96)
    ],
)
def test_from_every_task_to_probes_and_plain_timm(name, size, shapes, tmp_path):
    encoder = build(name, size, 0)
    info = describe(encoder, name, size)
    single = [task for task in tasks() if task not in ("multi", "supervised")]
    fitting = [task for task in single if fits(task, encoder, info, size)]
    assert ("mae" in fitting) == (info.prefix is not None) and len(fitting) >= 1
    study = run_study(
        pretrain={"data": str(shapes), "size": size},
        tasks=[{"name": task, "batch": 4} for task in fitting],
        steps=[2],
        encoders=[name],
        supervised=False,
        evaluation={"protocols": ["linear", "knn"], "num_labels": 60},
        runtime={"workers": "0", "wandb": "off", "storage": str(tmp_path / "runs"), "decode_threads": 1},
    )
    records = [EvaluationRecord.read(path) for path in study.folder.glob("evaluate/*/*.json")]
    evaluated = {(one.encoder.task, one.protocol.name) for one in records}
    assert {(task, protocol) for task in fitting for protocol in ("linear", "knn")} <= evaluated
    check_in_plain_timm(study.runs()[-1], size, tmp_path)


def check_in_plain_timm(run: Run, size: int, tmp_path) -> None:
    """Exports a run's encoder to timm's format and compares features with plain timm's in a process of its own."""
    file, pixels = tmp_path / "timm.pth", tmp_path / "images.pt"
    arguments = [str(run.folder), "--format", "timm", "--output", str(file), "--size", str(size)]
    said = StringIO()
    with redirect_stdout(said):
        jobs.commands.export.main(arguments)
    call = said.getvalue().splitlines()[-1].removeprefix("state dict for ")
    images = torch.randn(2, 3, size, size)
    torch.save(images, pixels)
    plain = subprocess.run(
        [sys.executable, "-c", PLAIN_TIMM, str(file), call, str(pixels)], cwd=tmp_path, capture_output=True, text=True
    )
    assert plain.returncode == 0, plain.stderr
    found = torch.load(pixels, weights_only=True)
    encoder = load_saved(run.folder)[0].eval()
    with torch.no_grad():
        maps = encoder(images)
        if isinstance(encoder, TokenEncoder):
            assert torch.allclose(found, encoder.tokens(images), atol=1e-5)
            return
    found = found[-1] if isinstance(found, list) else found
    found = found if found.shape == maps[-1].shape else found.permute(0, 3, 1, 2)
    assert torch.allclose(found, maps[-1], atol=1e-5), call
