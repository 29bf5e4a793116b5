"""Any model of timm is an encoder: its maps, its tokens, its weights by name, and its way back into plain timm."""

import io

import pytest
import timm
import torch
from support.synthetic_images import pretext
from torch import nn

from ssl_core.encoders.build import build, build_size, describe
from ssl_core.encoders.export import export_encoder
from ssl_core.encoders.pretrained import Pretrained, load_pretrained
from ssl_core.encoders.timm_models import is_sized, native_size
from ssl_core.encoders.tokens import TokenEncoder
from ssl_core.errors import UserError
from ssl_core.macs import encoder_macs

pytestmark = pytest.mark.slow
STATISTICS = ((120.0, 110.0, 100.0), (60.0, 50.0, 40.0))
# Each with the strides of its stages, and how many tokens come before those of its patches
FAMILIES = {
    "vit_tiny_patch16_224": ((16, 16, 16, 16, 0, 0), 1),
    "test_vit4": ((16, 16, 16, 16, 0), 1),  # a register token and no class token
    "vit_small_patch16_dinov3": ((16, 16, 16, 16, 0, 0), 5),
    "deit_tiny_distilled_patch16_224": ((16, 16, 16, 16, 0, 0), 2),
    "vit_tiny_r_s16_p8_224": ((32, 32, 32, 32, 0, 0), 1),
    "swin_tiny_patch4_window7_224": ((4, 8, 16, 32), None),
    "convnext_atto": ((4, 8, 16, 32), None),
    "mobilenetv3_small_050": ((2, 4, 8, 16, 32), None),
    "regnety_002": ((2, 4, 8, 16, 32), None),
    "coatnet_nano_rw_224": ((2, 4, 8, 16, 32), None),
    "cait_xxs24_224": ((16, 16, 16, 16), None),
}


# The larger size is left to make encoders
SIZES = pytest.mark.parametrize("size", [64, pytest.param(96, marks=pytest.mark.encoders)])


def images(count: int, size: int) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@SIZES
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_stages_are_maps_of_the_strides_that_are_said(name, size):
    strides, prefix = FAMILIES[name]
    encoder = build(name, size, 0).eval()
    info = describe(encoder, name, size)
    assert info.strides == strides and info.prefix == prefix
    maps = encoder(images(2, size))
    sides = [size // stride if stride else 1 for stride in strides]
    assert [tuple(m.shape) for m in maps] == [(2, w, s, s) for w, s in zip(info.widths, sides)]
    assert info.last_map == max(i for i, stride in enumerate(strides) if stride)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3", "vit-small-images"])
@torch.no_grad()
def test_a_transformers_stages_are_what_timm_computes(name):
    """Maps of blocks spread over the depth, the last one normalized; the mean of its patches; the class token."""
    encoder = build(name, 64, 0).eval()
    assert isinstance(encoder, TokenEncoder)
    for side in (64, 32):  # at another side than it was built for, too
        x = images(2, side)
        *maps, mean, cls = encoder(x)
        depth = len(encoder.model.blocks)
        blocks = [2, 5, 8, 11] if depth == 12 else [0, 1, 2, 3]
        wanted = encoder.model.forward_intermediates(x, indices=blocks, intermediates_only=True, output_fmt="NCHW")
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(maps[:-1], wanted[:-1], strict=True))
        tokens = encoder.model.forward_features(x)
        assert torch.allclose(maps[-1].flatten(2).transpose(1, 2), tokens[:, encoder.prefix :], atol=1e-6)
        assert torch.allclose(mean[:, :, 0, 0], tokens[:, encoder.prefix :].mean(1), atol=1e-6)
        assert torch.allclose(cls[:, :, 0, 0], tokens[:, 0], atol=1e-6)
        assert torch.allclose(encoder.tokens(x), tokens, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3", "vit_small_patch16_rope_mixed_224", "vit-small-images"]
)
@torch.no_grad()
def test_kept_tokens_have_their_places(name):
    """All patches in another order are the same tokens in that order; and a dropped patch has no say."""
    encoder = build(name, 64, 0).eval()
    x, prefix = images(2, 64), encoder.prefix
    whole = encoder.tokens(x)
    count = whole.shape[1] - prefix
    orders = torch.stack([torch.randperm(count, generator=torch.Generator().manual_seed(i)) for i in (3, 4)])
    shuffled = encoder.tokens(x, orders)
    rows = torch.arange(2)[:, None]
    assert torch.allclose(shuffled[:, prefix:], whole[:, prefix:][rows, orders], atol=1e-5)
    assert torch.allclose(shuffled[:, :prefix], whole[:, :prefix], atol=1e-5)
    few = encoder.tokens(x, orders[:, :5])
    assert few.shape == (2, prefix + 5, encoder.width)
    changed, patch = x.clone(), encoder.patch_size
    for image, gone in enumerate(orders[:, -1].tolist()):  # a patch that is not kept
        y, z = divmod(gone, 64 // patch)
        changed[image, :, y * patch : (y + 1) * patch, z * patch : (z + 1) * patch] += 1
    assert torch.equal(encoder.tokens(changed, orders[:, :5]), few)
    assert not torch.allclose(encoder.tokens(changed), whole, atol=1e-3)


@SIZES
@pytest.mark.parametrize("name", [*FAMILIES, "vit-small-images"])
@torch.no_grad()
def test_exported_weights_load_in_plain_timm(name, size):
    encoder = build(name, size, 3).train()
    for _ in range(2):
        encoder(images(4, size))  # so that statistics of batch norm count
    encoder.eval()
    data, said = export_encoder(Pretrained("it", encoder, name, size, *STATISTICS), size, "timm")
    call = said.removeprefix("state dict for ")
    model = eval(call, {"timm": timm})
    model.load_state_dict(
        torch.load(io.BytesIO(data), weights_only=True), strict=not call.endswith((".model", ".body"))
    )
    x, maps = images(2, size), encoder(images(2, size))
    if isinstance(encoder, TokenEncoder):
        tokens = model.eval().forward_features(x)
        last = maps[describe(encoder, name, size).last_map]
        assert torch.allclose(tokens[:, encoder.prefix :].transpose(1, 2), last.flatten(2), atol=1e-5)
    elif call.endswith((".model", ".body")):
        holder = eval(call.rsplit(".", 1)[0], {"timm": timm})
        getattr(holder, call.rsplit(".", 1)[1]).load_state_dict(model.state_dict())
        assert torch.allclose(holder.eval()(x)[-1], maps[-1], atol=1e-5)
    elif "features_only" in call:
        last = model.eval()(x)[-1]
        last = last if last.shape == maps[-1].shape else last.permute(0, 3, 1, 2)
        assert torch.allclose(last, maps[-1], atol=1e-5)
    else:
        assert torch.allclose(model.eval().forward_features(x), maps[-1], atol=1e-5)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_vit4", "swin_tiny_patch4_window7_224", "convnext_atto"])
@torch.no_grad()
def test_timms_own_weights_load_by_name(name, tmp_path):
    """Those of the whole model with its classifier, as timm saves it, into an encoder used at 64 px."""
    torch.manual_seed(0)
    plain = timm.create_model(name)
    torch.save(plain.state_dict(), tmp_path / "weights.pth")
    one = load_pretrained(f"timm:{name}={tmp_path / 'weights.pth'}")
    assert all("head" in unused or unused.startswith("norm") or "fc" in unused for unused in one.unused)
    side = timm.get_pretrained_cfg(name).input_size[-1]
    x = images(1, side)
    encoder = one.network().eval()
    own, wanted = encoder(x), plain.eval().forward_features(x)
    if isinstance(encoder, TokenEncoder):
        assert torch.allclose(encoder.tokens(x), wanted, atol=1e-5)
        assert build_size(name, one.built, 64) == side  # position embeddings stay those that were trained
    else:
        assert own[-1].shape[2] == side // 32
    assert encoder(images(1, 64))[-1].isfinite().all()


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("vit_tiny_patch16_224", 72, "patches of 16 px: their side has to be a multiple of that, not 72 px"),
        ("vit_small_patch14_reg4_dinov2", 64, "patches of 14 px: their side has to be a multiple of that, not 64 px"),
        ("efficientformer_l1", 96, "cannot take images of 96 px"),
        ("mobilenetv3_small_050", 32, "needs images of at least 64 px"),
        ("mobilevit_xxs", 32, "needs images of at least 64 px"),  # which takes a size and is the same at any
    ],
)
def test_what_cannot_take_a_size_says_why(name, size, said):
    with pytest.raises(UserError, match=said):
        describe(build(name, size, 0), name, size)


def test_the_smallest_transformers_are_the_same_at_each_seed():
    one, again, other = (build("vit-small-images", 32, seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), again.state_dict().values(), strict=True))
    assert not torch.equal(one.model.pos_embed, other.model.pos_embed)
    assert build_size("vit-small-images", 32, 64) == 32 and build_size("convnet", 32, 64) is None
    assert isinstance(one.model.norm, nn.LayerNorm)


def test_a_task_whose_crops_an_encoder_cannot_take_says_why():
    """CoAtNet's relative positions are of one size: it can fill in whole images, and predict no crop's rotation."""
    assert encoder_macs(pretext("context", "coatnet_nano_rw_224", 64), 64) > 0
    with pytest.raises(UserError, match="rotnet on images of 64 px: the encoder cannot take what the task shows it"):
        encoder_macs(pretext("rotnet", "coatnet_nano_rw_224", 64), 64)
    with pytest.raises(UserError, match="with gap 4 leaves tiles of 28 px, which vit_base_patch32_224 cuts"):
        pretext("jigsaw", "vit_base_patch32_224", 64)


def test_sizes_count_where_weights_depend_on_them():
    """Not for models that take an option for the size and are the same at any, as MobileViT and rotary embeddings."""
    sized = {name: is_sized(name) for name in ("vit_tiny_patch16_224", "coatnet_nano_rw_224", "cait_xxs24_224")}
    assert all(sized.values())
    assert not any(
        map(is_sized, ("mobilevit_xxs", "vit_small_patch16_dinov3", "resnet18", "swin_tiny_patch4_window7_224"))
    )
    assert native_size("vit_so400m_patch14_siglip_384") == 27 * 14  # timm leaves out what fills no patch
    assert build_size("vit_small_patch16_dinov3", 256, 64) is None and build_size("vit_tiny_patch16_224", 64, 96) == 64
