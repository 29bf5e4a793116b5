"""A file with several networks: the one that its authors evaluate, or the one that is asked for, and no other."""

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from ssl_core.encoders.build import build
from ssl_core.encoders.choice import choose_network
from ssl_core.encoders.pretrained import load_pretrained
from ssl_core.errors import UserError


def weights(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return timm.create_model("test_resnet").state_dict()


FIRST, SECOND = weights(1), weights(2)


def below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def both(first: str, second: str) -> dict:
    """Two networks in one dict, below these prefixes, or, where there is a colon, in a dict of each."""
    held: dict = {}
    for place, state in ((first, FIRST), (second, SECOND)):
        where, _, prefix = place.rpartition(":")
        held.setdefault(where, {}).update(below(prefix, state))
    return {**held.pop("", {}), **held}


def chosen(held: dict, tmp_path, asked: str = "", architecture: str = "timm:test_resnet"):
    torch.save(held, tmp_path / "w.pth")
    one = load_pretrained(f"{architecture}={tmp_path}/w.pth{asked}")
    first = one.encoder.state_dict()["conv1.0.weight" if "test" in architecture else "conv1.weight"]
    return one, first


@pytest.mark.parametrize(
    ("taken", "left"),
    [
        ("state_dict:module.encoder_q.", "state_dict:module.encoder_k."),  # MoCo v2
        ("state_dict:module.base_encoder.", "state_dict:module.momentum_encoder."),  # MoCo v3
        ("teacher:backbone.", "student:module.backbone."),  # DINO, iBOT
        ("teacher_backbone.", "student_backbone."),  # lightly
        ("backbone.", "student_backbone."),  # lightly's DINO benchmark, whose backbone is the teacher's
        ("state_dict_ema:", "state_dict:"),  # timm
        ("model_ema:", "model:"),
        ("online_encoder.net.", "target_encoder.net."),  # BYOL
        ("state_dict:online_net.0.", "state_dict:target_net.0."),
        ("target_encoder:module.", "encoder:module."),  # I-JEPA
        ("state_dict:backbone.", "state_dict:momentum_backbone."),  # solo-learn
        ("backbone.", "backbone_momentum."),  # lightly
        ("encoder.", "encoder_k."),  # PixPro
        ("a.", "b."),  # no convention: the first in the file
    ],
)
@pytest.mark.slow
def test_what_authors_evaluate_is_taken(taken, left, tmp_path):
    """In whichever order they lie, and the line says so; the other can be asked for."""
    orders = [both(taken, left)]
    if taken != "a.":
        orders.append({name: held for name, held in reversed(both(taken, left).items())})
        for name, held in orders[1].items():
            if isinstance(held, dict):
                orders[1][name] = dict(reversed(held.items()))
    for held in orders:
        one, first = chosen(held, tmp_path)
        assert torch.equal(first, FIRST["conv1.0.weight"])
        (note,) = one.notes
        label, other = one.label.removeprefix("timm:test_resnet=w.pth#"), note.split("w.pth#")[1].split(" ")[0]
        assert note == f"it is {label} of the file, where w.pth#{other} would fit as well"
        assert label and label in taken and other and other in left
        again, first = chosen(held, tmp_path, f"#{other}")
        assert torch.equal(first, SECOND["conv1.0.weight"]) and again.label == f"timm:test_resnet=w.pth#{other}"
        assert not any("encoder_" in name or "backbone" in name for name in one.unused if "fc" not in name)


@pytest.mark.parametrize(
    "asked",
    [
        "encoder_k",
        "module.encoder_k",
        "module.encoder_k.",
        "state_dict.module.encoder_k",
        "state_dict.module.encoder_k.",
    ],
)
def test_a_network_may_be_asked_for_by_any_of_its_names(asked, tmp_path):
    held = both("state_dict:module.encoder_q.", "state_dict:module.encoder_k.")
    one, first = chosen(held, tmp_path, f"#{asked}")
    assert torch.equal(first, SECOND["conv1.0.weight"]) and one.label == "timm:test_resnet=w.pth#encoder_k"
    assert one.unused == ("module.encoder_k.fc.weight", "module.encoder_k.fc.bias")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("decoder", "w.pth has no network decoder that fits the encoder; those that fit: encoder_q, encoder_k"),
        ("encoder", "has no network encoder that fits"),
        ("module", "w.pth#module may be encoder_q or encoder_k: say which"),
    ],
)
def test_a_name_of_none_or_of_several_is_refused(asked, said, tmp_path):
    with pytest.raises(UserError, match=said):
        chosen(both("state_dict:module.encoder_q.", "state_dict:module.encoder_k."), tmp_path, f"#{asked}")


def test_one_at_the_top_beside_another(tmp_path):
    held = {**SECOND, **below("ema.", FIRST)}
    one, first = chosen(held, tmp_path)
    assert torch.equal(first, FIRST["conv1.0.weight"]) and "w.pth#. would fit" in one.notes[0]
    assert torch.equal(chosen(held, tmp_path, "#.")[1], SECOND["conv1.0.weight"])


def test_equal_networks_are_no_choice(tmp_path):
    one, _ = chosen({"model": FIRST, "model_ema": {k: v.clone() for k, v in FIRST.items()}}, tmp_path)
    assert one.label == "timm:test_resnet=w.pth" and not one.notes


def test_one_that_does_not_fit_is_no_choice(tmp_path):
    """A student distilled from a larger teacher."""
    large = timm.create_model("test_convnext").state_dict()
    one, first = chosen({"teacher": large, "student": FIRST}, tmp_path)
    assert torch.equal(first, FIRST["conv1.0.weight"]) and one.label == "timm:test_resnet=w.pth" and not one.notes


def test_a_name_with_a_mark_is_a_files_if_it_is_there(tmp_path):
    for name in ("a#b.pth", "c#encoder_k"):
        torch.save(both("encoder_q.", "encoder_k."), tmp_path / name)
    told = f"timm:test_resnet={tmp_path}/"
    assert load_pretrained(f"{told}a#b.pth").label == "timm:test_resnet=a#b.pth#encoder_q"
    assert load_pretrained(f"{told}a#b.pth#encoder_k").label == "timm:test_resnet=a#b.pth#encoder_k"
    assert load_pretrained(f"{told}c#encoder_k").label == "timm:test_resnet=c#encoder_k#encoder_q"
    with pytest.raises(UserError, match="/none cannot be read: No such file"):
        load_pretrained(f"{told}none#encoder_k")


@pytest.mark.slow
def test_chance_takes_none():
    """Texts are hashed anew in each process: what hangs on the order of a set would differ for some of these."""
    for i in range(10):
        held = both(f"x{i}.", f"y{i}.")
        assert choose_network(build("test_resnet", 64, 0), "test_resnet", [("", held)], "w.pth").label == f"x{i}"


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(3)
    return torchvision.models.resnet18()


@pytest.mark.parametrize("library", ["timm", "torchvision"])
@pytest.mark.parametrize("prefix", ["", "module.backbone."])
@pytest.mark.slow
def test_the_numbers_of_a_sequential_are_children_in_order(resnet, library, prefix, tmp_path):
    """lightly's backbones; with or without the pooling, the classifier, and layers without weights."""
    children = list(resnet.children())
    for kept in (children[:-1], children, [child for child in children if child.state_dict()]):
        one, _ = chosen(below(prefix, nn.Sequential(*kept).state_dict()), tmp_path, "", f"{library}:resnet18")
        for name, tensor in one.encoder.state_dict().items():
            assert torch.equal(tensor, resnet.state_dict()[name])
        layers = [i for i, child in enumerate(kept) if isinstance(child, nn.Sequential)]
        said = ", ".join(f"{i} as layer{n}" for n, i in enumerate(layers, start=1))
        assert one.notes == (f"the numbers in its names count resnet18's children: 0 as conv1, 1 as bn1, {said}",)
        assert all(name.endswith((".weight", ".bias")) for name in one.unused) and len(one.unused) in (0, 2)


@pytest.mark.slow
def test_sequentials_may_be_several(resnet, tmp_path):
    torch.manual_seed(4)
    cut = [nn.Sequential(*list(model.children())[:-1]) for model in (resnet, torchvision.models.resnet18())]
    held = below("backbone.", cut[0].state_dict()) | below("backbone_momentum.", cut[1].state_dict())
    assert torch.equal(chosen(held, tmp_path, "", "timm:resnet18")[1], cut[0][0].weight)
    assert torch.equal(chosen(held, tmp_path, "#backbone_momentum", "timm:resnet18")[1], cut[1][0].weight)


def stem(model: nn.Module) -> nn.Module:
    model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    return model


@pytest.mark.parametrize("sequential", [True, False])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: stem(torchvision.models.resnet18()), r"weight \(64, 3, 3, 3\) instead of \(64, 3, 7, 7\)"),
        (torchvision.models.resnet34, "of a deeper network than the encoder: it has layer1.2.conv1.weight"),
        (lambda: timm.create_model("resnet10t"), "fits .* it lacks"),
    ],
)
@pytest.mark.slow
def test_what_is_not_certain_is_refused(make, said, sequential):
    model = make()
    state = nn.Sequential(*list(model.children())[:-1]).state_dict() if sequential else model.state_dict()
    with pytest.raises(UserError, match=said):
        choose_network(build("resnet18", 64, 0), "resnet18", [("", state)], "w.pth")
