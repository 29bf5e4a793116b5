"""What is written gives the encoder's own numbers, in the program that it is written for."""

import errno
import io
import os
import re
import sys
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from safetensors import safe_open

import jobs.commands.export
import ssl_core.encoders.export
from ssl_core.encoders.build import build
from ssl_core.encoders.export import ExportFailed, export_encoder
from ssl_core.encoders.pretrained import Pretrained
from ssl_core.errors import UserError
from ssl_core.evaluation.frozen_encoder import normalize
from ssl_core.storage.files import create, write_bytes
from ssl_core.task import InputFormat

STATISTICS = ((120.0, 110.0, 100.0), (60.0, 50.0, 40.0))
PIXELS = torch.randint(0, 256, (3, 48, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


def one(name: str, normalization: str = "dataset", built: int = 48) -> Pretrained:
    """An encoder whose batch norm has seen something, so that its statistics count."""
    encoder = build(name, built, 0).train()
    torch.manual_seed(0)
    encoder(torch.randn(8, 3, 64, 64))
    return Pretrained("it", encoder.eval(), name, built, *STATISTICS, normalization=normalization)


def expected(one: Pretrained) -> list[torch.Tensor]:
    """Through the kernels that features are made with."""
    with torch.no_grad():
        return one.encoder(normalize(PIXELS, one.normalization, InputFormat(*STATISTICS, channels_last=False)))


@pytest.mark.parametrize("normalization", ["dataset", "image"])
def test_torchscript_begins_at_pixels(normalization):
    """The same maps from uint8 and from float32, for any number of images."""
    encoder = one("convnet", normalization)
    data, said = export_encoder(encoder, 48, "torchscript")
    loaded, pixels = torch.jit.load(io.BytesIO(data)), PIXELS.permute(0, 3, 1, 2)
    for given in (pixels, pixels.float()):
        for found, wanted in zip(loaded(given), expected(encoder), strict=True):
            assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert "uint8 or float32 [b, 3, 48, 48] of 0..255" in said and "[128, 6, 6]" in said


@pytest.mark.parametrize(("name", "normalization"), [("test_resnet", "dataset"), ("convnet", "image")])
@pytest.mark.slow
def test_onnx_begins_at_pixels(name, normalization):
    encoder = one(name, normalization, 64 if name != "convnet" else 48)
    data, said = export_encoder(encoder, 48, "onnx")
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].type == "tensor(uint8)" and said.startswith("input `pixels`: uint8")
    found = session.run(None, {"pixels": PIXELS.permute(0, 3, 1, 2).numpy()})
    for a, b in zip(found, expected(encoder), strict=True):
        assert np.allclose(a, b.numpy(), rtol=1e-3, atol=1e-4)


def test_onnx_without_its_packages_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install -e '.\[export\]'"):
        export_encoder(one("convnet"), 48, "onnx")


@pytest.mark.slow
def test_timm_loads_its_own(tmp_path):
    """A whole model where that has no more weights; else the model of features, as timm names it."""
    encoder = one("resnet18", built=64)
    with torch.no_grad():
        data, said = export_encoder(encoder, 64, "timm")
        assert said.endswith("timm.create_model('resnet18', num_classes=0)")
        model = timm.create_model("resnet18", num_classes=0).eval()
        model.load_state_dict(torch.load(io.BytesIO(data), weights_only=True))
        images = torch.randn(2, 3, 64, 64)
        assert torch.equal(model(images), encoder.encoder(images)[-1].mean((2, 3)))
        data, said = export_encoder(one("test_convnext", built=64), 64, "timm")
        assert said.endswith("timm.create_model('test_convnext', features_only=True)")
        model = timm.create_model("test_convnext", features_only=True)
        model.load_state_dict(torch.load(io.BytesIO(data), weights_only=True))


@pytest.mark.slow
def test_what_timm_wraps_is_exported_under_timms_names():
    """A model of which features_only wraps the whole."""
    encoder, use = build("pit_ti_224", 224, 3), "timm.create_model('pit_ti_224', num_classes=0, img_size=224)"
    data, said = export_encoder(Pretrained("it", encoder.eval(), "pit_ti_224", 224, *STATISTICS), 224, "timm")
    assert said == f"state dict for {use}"
    state, loaded = torch.load(io.BytesIO(data), weights_only=True), timm.create_model("pit_ti_224", features_only=True)
    dict(loaded.named_children())["body"].load_state_dict(state, strict=False)
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(loaded.eval()(images), encoder(images), strict=True))


@pytest.mark.parametrize(
    ("name", "built", "said"),
    [("convnet", 48, "convnet is none of timm's"), ("resnet18", 32, "was made for 32 px, with a stem")],
)
@pytest.mark.slow
def test_what_timm_has_not_is_refused(name, built, said):
    with pytest.raises(UserError, match=said):
        export_encoder(one(name, built=built), 48, "timm")


def test_safetensors_say_what_they_are(tmp_path):
    encoder = one("convnet", "image")
    (tmp_path / "w.safetensors").write_bytes(export_encoder(encoder, 48, "safetensors")[0])
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert file.metadata() == {
            "encoder": "convnet",
            "size": "48",
            "normalization": "image",
            "mean": "120.0 110.0 100.0",
            "std": "60.0 50.0 40.0",
        }
        for name, tensor in encoder.encoder.state_dict().items():
            assert torch.equal(file.get_tensor(name), tensor)


@pytest.mark.slow
def test_a_file_that_gives_other_numbers_is_none(monkeypatch, tmp_path):
    """Here because torch is made to save an encoder with the statistics of no dataset."""
    encoder, save, black = one("convnet"), torch.jit.save, torch.zeros(1, 3, 48, 48, dtype=torch.uint8)
    other = torch.jit.trace(
        ssl_core.encoders.export.PixelEncoder(replace(encoder, mean=(0.0,) * 3), encoder.encoder), black
    )
    monkeypatch.setattr(torch.jit, "save", lambda module, out: save(other, out))
    with pytest.raises(ExportFailed, match="the maps of stage 1 are off by"):
        export_encoder(encoder, 48, "torchscript")
    with pytest.raises(ExportFailed, match="the maps of stage 1 are off by"):
        jobs.commands.export.main(
            ["timm:test_resnet=random", "--format", "torchscript", "--output", str(tmp_path / "x.pt")]
        )
    assert not (tmp_path / "x.pt").exists()


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("folder", "is a folder: give a file in it"),
        ("/dev/null", "is no plain file"),
        ("file/x.pth", r"cannot be written: File exists \(.*/file\)"),
        ("/proc/x.pth", "cannot be written: No such file or directory"),
        ("x" * 300, "cannot be written: File name too long"),
        ("full.pth", "cannot be written: No space left on device"),
    ],
)
def test_what_cannot_be_written_is_named_as_it_was_given(to, said, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    if to == "full.pth":
        monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=rf"^--output {re.escape(str(tmp_path / to))} {said}$"):
        jobs.commands.export.main(["timm:test_resnet=random", "--format", "timm", "--output", str(tmp_path / to)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_long_name_has_room_for_what_is_written_beside_it(tmp_path):
    write_bytes(tmp_path / ("ü" * 120), b"it")
    assert create(tmp_path / ("v" * 255), b"it") and not create(tmp_path / ("v" * 255), b"other")
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"it"} and len(list(tmp_path.iterdir())) == 2


def test_the_verb_says_which_network_it_took(tmp_path, capsys):
    first, second = (
        {f"{key}.{n}": t for n, t in build("test_resnet", 64, seed).state_dict().items()}
        for seed, key in enumerate(("student", "teacher"))
    )
    torch.save(first | second, tmp_path / "w.pth")
    jobs.commands.export.main(
        [f"timm:test_resnet={tmp_path}/w.pth", "--format", "timm", "--output", str(tmp_path / "x.pth")]
    )
    assert "it is teacher of the file, where w.pth#student would fit as well" in capsys.readouterr().out


def test_the_verb_writes_the_file(tmp_path, capsys):
    jobs.commands.export.main(
        ["timm:test_resnet=random", "--format", "timm", "--output", str(tmp_path / "deep" / "x.pth")]
    )
    state = torch.load(tmp_path / "deep" / "x.pth", weights_only=True)
    assert torch.equal(state["conv1.0.weight"], build("test_resnet", 64, 0)["conv1"][0].weight)
    assert "read back and compared" in capsys.readouterr().out
