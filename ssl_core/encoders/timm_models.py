"""Builds timm's models as encoders, and knows which of them are built for one image size."""

from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from ssl_core.encoders.tokens import MAPS, TokenEncoder, spread

SIZE_FREE = 64  # pixels that models are said to be built for which are the same at any size


def build_timm(name: str, size: int, pretrained: bool = False) -> nn.Module:
    """Builds a model of timm as an encoder.

    Args:
        name: timm's name of the model.
        size: The side of the square images in pixels; models that are the same at any size do not look at it.
        pretrained: Whether it has the weights that timm publishes; otherwise they are random, by torch's generator.

    Returns:
        An encoder: [b, 3, h, w] to the list of its stages' maps, [b, width, h', w'] each; a TokenEncoder of a vision
        transformer.
    """
    import timm  # takes two seconds, which most commands need not wait for
    from timm.layers.format import Format

    options = {**model_options(name, size), **_size_options(name)[0]}
    if _is_token_model(name):
        return TokenEncoder(timm.create_model(name, pretrained=pretrained, **options))
    encoder = timm.create_model(name, pretrained=pretrained, features_only=True, **options)
    if getattr(encoder, "output_fmt", None) == Format.NHWC:
        encoder.register_forward_hook(_channels_first)
    return encoder


def model_options(name: str, size: int) -> dict[str, Any]:
    """Returns the options by which plain timm builds a model with the same weights as `build_timm`.

    Args:
        name: timm's name of the model.
        size: The image side in pixels that it is built for.

    Returns:
        Keyword arguments of timm.create_model: for a vision transformer those of the whole model, otherwise those that
        go with features_only=True.
    """
    sized = {"img_size": size} if is_sized(name) else _size_options(name)[0]
    if not _is_token_model(name):
        return {**sized, **_spread_maps(name)}
    # attention pooling comes after the last map, as a classifier does
    pooled = getattr(on_meta(name), "attn_pool", None) is not None
    return {"num_classes": 0, **sized, **({"global_pool": ""} if pooled else {})}


def is_sized(name: str) -> bool:
    """Returns whether a model of timm is another one for each image size, because of its position embeddings.

    Args:
        name: timm's name of the model.
    """
    return _size_options(name)[1]


def native_size(name: str) -> int:
    """Returns the image side in pixels that a model's published weights are for; SIZE_FREE if it is none of `is_sized`.

    Args:
        name: timm's name of the model.
    """
    return _published_size(name) if is_sized(name) else SIZE_FREE


def _published_size(name: str) -> int:
    """Returns the side of the images in pixels, less what does not fill a whole patch, which timm leaves out."""
    import timm

    config = timm.get_pretrained_cfg(name)
    size = config.input_size[-1] if config else 224
    embed: Any = getattr(on_meta(name), "patch_embed", None)
    patch = int(embed.feat_ratio()) if _is_token_model(name) else 1
    return size // patch * patch


@cache
def _size_options(name: str) -> tuple[dict[str, Any], bool]:
    """Returns what makes a model take images of other sides, too, and whether its weights depend on an image size.

    Raises:
        Exception: Whatever timm raises for a model that it cannot build.
    """
    on_meta(name)  # says what is wrong with a name
    ways: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {})
    for options in ways:
        try:
            shapes = [_shapes(name, times * _published_size(name), options) for times in (1, 2)]
        except TypeError:  # it knows no such option
            continue
        return options, shapes[0] != shapes[1]
    return {}, False


def _shapes(name: str, size: int, options: dict[str, Any]) -> dict[str, torch.Size]:
    """Returns the shapes of the weights and buffers of a model that is built for a size."""
    model = on_meta(name, img_size=size, **options)
    return {name: tensor.shape for named in (model.named_parameters(), model.named_buffers()) for name, tensor in named}


def _spread_maps(name: str) -> dict[str, list[int]]:
    """Returns which blocks give the maps of a model whose blocks are all alike; timm takes the last three."""
    model: Any = on_meta(name)
    blocks = getattr(model, "feature_info", None) or []
    same = len({block["reduction"] for block in blocks}) == 1
    return {"out_indices": spread(len(blocks))} if same and len(blocks) > MAPS else {}


def _is_token_model(name: str) -> bool:
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    return isinstance(on_meta(name), (VisionTransformer, Eva))


@lru_cache(maxsize=64)
def on_meta(name: str, **options) -> nn.Module:
    """Returns a model of timm without numbers, which nobody may change: it is built once for each set of options.

    Args:
        name: timm's name of the model.
        options: Of timm.create_model.
    """
    import timm

    with torch.device("meta"):
        return timm.create_model(name, pretrained=False, **options)


def _channels_first(module: nn.Module, given: tuple, maps: list[Tensor]) -> list[Tensor]:
    """A forward hook for models whose maps are [b, h, w, width]."""
    return [one.permute(0, 3, 1, 2) for one in maps]
