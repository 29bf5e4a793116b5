"""Encoders from elsewhere: whatever names a file gives its weights, they end where they belong, or nowhere."""

import os
import pickle
from collections import OrderedDict

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from ssl_core.data.dataset import IMAGENET_MEAN, IMAGENET_STD
from ssl_core.encoders.build import OWN, RestandardizedEncoder, build, digest
from ssl_core.encoders.choice import choose_network
from ssl_core.encoders.pretrained import _statistics, load_pretrained
from ssl_core.encoders.state_dicts import read_state_dicts
from ssl_core.encoders.torchvision import Stages, _without_head
from ssl_core.errors import UserError

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def maps_of(told: str) -> list[torch.Tensor]:
    with torch.no_grad():
        return load_pretrained(told).encoder.eval()(IMAGES)


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    """A timm model with a classifier, as its users have it."""
    torch.manual_seed(1)
    return timm.create_model("test_resnet", num_classes=10).eval()


@pytest.mark.parametrize(
    ("wrapper", "prefix"),
    [(None, ""), (None, "module."), ("model", "backbone."), ("state_dict", "module.encoder_q.")],
)
def test_weights_are_found_below_any_wrapper_and_prefix(plain, tmp_path, prefix, wrapper):
    state = {prefix + name: tensor for name, tensor in plain.state_dict().items()}
    torch.save({"epoch": 7, wrapper: state} if wrapper else state, tmp_path / "w.pth")
    one = load_pretrained(f"timm:test_resnet={tmp_path}/w.pth")
    assert one.unused == (f"{prefix}fc.weight", f"{prefix}fc.bias") and one.label == "timm:test_resnet=w.pth"
    with torch.no_grad():
        assert torch.equal(one.encoder.eval()(IMAGES)[-1], plain.forward_features(IMAGES))


@pytest.mark.parametrize("name", ["test_convnext", "test_efficientnet"])
def test_timm_renames_stages_and_we_know(name, tmp_path):
    """Inside features_only models stages.0 is stages_0, and what follows the last stage is left out."""
    torch.manual_seed(2)
    model = timm.create_model(name).eval()
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, tmp_path / "w.safetensors")
    with torch.no_grad():
        expected = model.forward_intermediates(IMAGES, intermediates_only=True)
    found = maps_of(f"timm:{name}={tmp_path}/w.safetensors")
    assert torch.allclose(found[-1], expected[-1], atol=1e-6)


@pytest.mark.parametrize("name", ["test_vit", "pit_ti_224", "xcit_nano_12_p16_224"])
@pytest.mark.slow
def test_what_timm_wraps_has_timms_names(name, tmp_path):
    """Inside features_only models all names begin with model. or body.; a file may have either's."""
    torch.manual_seed(2)
    state = timm.create_model(name).state_dict()
    torch.save(state, tmp_path / "w.pth")
    one = load_pretrained(f"timm:{name}={tmp_path}/w.pth")
    found = one.encoder.state_dict()
    assert all(torch.equal(tensor, state[key.partition(".")[2]]) for key, tensor in found.items())
    assert set(one.unused) == set(state) - {key.partition(".")[2] for key in found}
    torch.save(found, tmp_path / "f.pth")
    again = load_pretrained(f"timm:{name}={tmp_path}/f.pth")
    assert digest(again.encoder) == digest(one.encoder) and again.unused == ()


@pytest.mark.slow
def test_torchvision_is_its_own_model(tmp_path):
    torch.manual_seed(3)
    model = torchvision.models.mobilenet_v3_small().eval()
    torch.save(model.state_dict(), tmp_path / "w.pt")
    found = maps_of(f"torchvision:mobilenet_v3_small={tmp_path}/w.pt")
    with torch.no_grad():
        assert torch.equal(found[-1], model.features(IMAGES))
    assert [IMAGES.shape[3] // m.shape[3] for m in found] == [2, 4, 8, 16, 32]


class ChannelsLast(nn.Module):
    """What a transformer gives: maps of [height, width, channels]."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 48, 16, 16)

    def forward(self, x):
        return self.patches(x).permute(0, 2, 3, 1)[:, :, :, :32].mean((1, 2))


def test_stages_are_the_last_maps_of_each_resolution():
    """Named by hand in a model that is small enough to see through; a classifier is none."""
    layers = [
        ("a", nn.Conv2d(3, 4, 3, 2, 1)),
        ("b", nn.ReLU()),
        ("c", nn.Conv2d(4, 5, 3, 2, 1)),
        ("classifier", nn.Conv2d(5, 9, 1)),
        ("pool", nn.AdaptiveAvgPool2d(7)),
        ("flat", nn.Flatten()),
    ]
    model = nn.Sequential(OrderedDict(layers)).eval()
    first, second = Stages(_without_head(model, "it"))(IMAGES)
    assert torch.equal(first, model.b(model.a(IMAGES))) and torch.equal(second, model.c(first))
    assert set(Stages(_without_head(model, "it")).state_dict()) == {"a.weight", "a.bias", "c.weight", "c.bias"}
    patches = Stages(_without_head(ChannelsLast().eval(), "it"))(IMAGES)
    assert [m.shape[1:] for m in patches] == [(48, 4, 4)]  # the convolution's, before its axes are turned


def test_weights_of_before_batch_norm_counted_are_whole(plain):
    encoder = build("test_resnet", 64, 0)
    old = {k: v for k, v in plain.state_dict().items() if "num_batches_tracked" not in k}
    choice = choose_network(encoder, "test_resnet", [("", old)], "old")
    assert choice.unused == ("fc.weight", "fc.bias")
    assert torch.equal(choice.network.state()["conv1.0.weight"], plain.conv1[0].weight)


class Trap:
    """A pickle that makes a folder when it is read."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def test_nothing_in_a_file_is_run(plain, tmp_path):
    torch.save({"state_dict": plain.state_dict(), "args": Trap(tmp_path / "sprung")}, tmp_path / "w.pth")
    (tmp_path / "bare.pkl").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    for name in ("w.pth", "bare.pkl"):
        with pytest.raises(UserError, match="nothing else is unpickled here"):
            read_state_dicts(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (
            "timm:test_efficientnet={}/w.pth",
            r"fits \d+ of \d+ tensors of the encoder; it lacks conv_stem.weight, .* more, and has conv1.0.weight",
        ),
        ("timm:test_resnet={}/short.pth", "fits 1?[0-9]+ of [0-9]+ .* it lacks conv1.0.weight"),
        ("timm:test_resnet={}/wide.pth", r"other shapes than the encoder: conv1.0.weight \(1, 2\) instead of"),
        ("timm:test_resnet={}/empty.pth", "fits 0 of"),
        ("timm:test_resnet={}/none.pth", "cannot be read"),
        ("timm:test_resnet={}/text.pth", "neither safetensors nor a checkpoint"),
        ("timm:test_resnet=", "expected timm:NAME"),
        ("timm:resnet999=random", "'resnet999' cannot be built"),
        ("torchvision:resnet999=random", "'torchvision:resnet999' cannot be built"),
        ("{}", "no encoder.json in it"),
        ("{}/w.pth", "its architecture has to be said"),
    ],
)
def test_what_does_not_fit_is_refused(plain, tmp_path, told, said):
    state = plain.state_dict()
    torch.save(state, tmp_path / "w.pth")
    torch.save({k: v for k, v in state.items() if k != "conv1.0.weight"}, tmp_path / "short.pth")
    torch.save({**state, "conv1.0.weight": torch.zeros(1, 2)}, tmp_path / "wide.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    (tmp_path / "text.pth").write_text("weights")
    with pytest.raises(UserError, match=said):
        load_pretrained(told.format(tmp_path))


def test_a_download_that_fails_is_one_line(monkeypatch):
    made = timm.create_model

    def unreachable(*args, pretrained=False, **kwargs):
        if pretrained:
            raise OSError("no route to host\nand much more")
        return made(*args, **kwargs)

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(UserError, match="cannot be had: no route to host; give them as a file") as error:
        load_pretrained("timm:test_resnet")
    assert "\n" not in str(error.value)


def test_statistics_are_those_that_the_weights_were_trained_with(plain, tmp_path):
    """timm says them for each model: halves for this one, ImageNet's for most."""
    torch.save(plain.state_dict(), tmp_path / "w.pth")
    one = load_pretrained(f"timm:test_resnet={tmp_path}/w.pth")
    assert (one.mean, one.std) == ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
    assert _statistics("timm", "resnet18") == (pytest.approx(IMAGENET_MEAN), pytest.approx(IMAGENET_STD))


def test_pixels_are_standardized_as_the_encoder_wants_them():
    """An encoder that gives its input back, on pixels standardized by other statistics."""
    given, wanted = ((10.0, 20.0, 30.0), (2.0, 4.0, 8.0)), ((100.0, 110.0, 120.0), (50.0, 60.0, 70.0))
    pixels = IMAGES * 255

    def by(statistics):
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in statistics)
        return (pixels - mean) / std

    assert torch.allclose(RestandardizedEncoder(nn.Identity(), given, wanted)(by(given)), by(wanted), atol=1e-4)


def test_nin_is_the_papers():
    """12 convolutions (Gidaris et al. 2018, section 4.1), of the widths, kernels and pools of its authors' code."""
    nin = OWN["nin"](32)
    kernels = [m.kernel_size[0] for m in nin.modules() if isinstance(m, nn.Conv2d)]
    assert kernels == [5, 1, 1, 5, 1, 1, 3, 1, 1, 3, 1, 1]
    maps = nin(IMAGES[:, :, :32, :32])
    assert [tuple(m.shape[1:]) for m in maps] == [(96, 16, 16)] + 3 * [(192, 8, 8)]


@pytest.mark.slow
def test_a_model_that_computes_while_it_is_built(tmp_path):
    """RegNets of torchvision cannot be built on the meta device, where names are looked up."""
    torch.manual_seed(0)
    model = torchvision.models.get_model("regnet_y_400mf")
    torch.save(model.state_dict(), tmp_path / "w.pth")
    one = load_pretrained(f"torchvision:regnet_y_400mf={tmp_path}/w.pth")
    assert one.unused == ("fc.weight", "fc.bias")


def test_only_floats_are_weights(plain, tmp_path):
    torch.save({name: tensor.to(torch.int8) for name, tensor in plain.state_dict().items()}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="is int8, only floats are weights here"):
        load_pretrained(f"timm:test_resnet={tmp_path}/w.pth")


@pytest.mark.parametrize(("name", "why"), [("x" * 300, "File name too long"), ("a\0b", "no file has such a name")])
def test_names_that_no_file_can_have(name, why):
    for told in (f"timm:test_resnet={name}", name):
        with pytest.raises(UserError, match=why):
            load_pretrained(told)
