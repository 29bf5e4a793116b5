"""Builds encoders by name: timm's, torchvision's and this project's own.

An encoder is a module that maps [b, 3, h, w] to the list of its stages' maps [b, width, h / stride, w / stride],
shallow to deep.
"""

import hashlib
from functools import partial

import torch
from torch import Tensor, nn

from ssl_core.encoders.patch_dictionary import PREFIX, PatchDictionary
from ssl_core.encoders.small import OWN, PIXELS, VIT
from ssl_core.encoders.timm_models import build_timm, is_sized, native_size, on_meta
from ssl_core.encoders.tokens import TokenEncoder
from ssl_core.errors import UserError, closest
from ssl_core.task import EncoderInfo

PROBE_SIZE = 256  # pixels that strides are measured at
SMALL_IMAGE_SIZE = 64  # pixels; below this an ImageNet stem leaves nothing to look at
TORCHVISION = "torchvision:"  # before the name of one of its models


class RestandardizedEncoder(nn.Module):
    """Lets an encoder take pixels that were standardized by other statistics than those that it was trained with.

    Args:
        encoder: An encoder of pixels standardized by `wanted`.
        given: Mean and standard deviation of each channel, in units of 0..255, by which its input was standardized.
        wanted: Those that it was trained with.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, encoder: nn.Module, given: tuple, wanted: tuple):
        super().__init__()
        (m0, s0), (m1, s1) = (torch.tensor(pair, dtype=torch.float64).view(2, 1, 3, 1, 1) for pair in (given, wanted))
        self.encoder = encoder
        self.register_buffer("scale", (s0 / s1).float())
        self.register_buffer("shift", ((m0 - m1) / s1).float())

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.encoder(x * self.scale + self.shift)


def build(name: str, size: int, seed: int) -> nn.Module:
    """Builds an encoder with random weights.

    timm's ResNets get a stem for small images below SMALL_IMAGE_SIZE (3x3, stride 1, no max-pool), as in He et al. 2016
    (arXiv:1512.03385, section 4.2).

    Args:
        name: A key of OWN, kmeans-N with N centroids, torchvision:NAME, or the name of a timm model.
        size: The side of the square images in pixels.
        seed: Decides the weights.

    Raises:
        UserError: If there is no encoder of this name, or it needs larger images.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name in OWN:
            return OWN[name](size)
        if _is_dictionary(name):
            return PatchDictionary(int(name.removeprefix(PREFIX)))
        if name.startswith(TORCHVISION):
            if size < SMALL_IMAGE_SIZE:
                raise UserError(f"encoder {name!r} needs images of at least {SMALL_IMAGE_SIZE} px, these are {size} px")
            from ssl_core.encoders.torchvision import build_stages

            return build_stages(name.removeprefix(TORCHVISION))
        try:
            encoder = build_timm(name, size)
        except Exception as error:
            raise UserError(f"encoder {name!r} cannot be built{_why_not(name, size, error)}") from error
        if isinstance(encoder, TokenEncoder):
            _check_patches(name, encoder, size)
            return encoder
        if size < SMALL_IMAGE_SIZE and not is_sized(name):
            _small_stem(name, encoder, size)
        return encoder


def _is_dictionary(name: str) -> bool:
    return name.startswith(PREFIX) and name.removeprefix(PREFIX).isdecimal()


def is_floor(name: str) -> bool:
    """Returns whether there is nothing in an encoder to train: raw pixels, or a dictionary of patches.

    Args:
        name: The encoder's name.
    """
    return name == PIXELS or _is_dictionary(name)


def is_own(name: str) -> bool:
    """Returns whether an encoder is this project's own, and no library's.

    Args:
        name: The encoder's name.
    """
    return name in OWN or _is_dictionary(name)


def _why_not(name: str, size: int, error: Exception) -> str:
    import timm

    if timm.is_model(name.split(".")[0]):
        return f" for images of {size} px: {str(error).splitlines()[0]}"
    near = closest(name, [*OWN, *timm.list_models()])
    hint = f"did you mean {near}? " if near and near != name else ""
    return f": {error}; {hint}try one of: {', '.join([*OWN, *timm.list_models(f'*{name}*')[:5]])}"


def _check_patches(name: str, encoder: TokenEncoder, size: int) -> None:
    if size % encoder.patch_size:
        raise UserError(
            f"encoder {name!r} cuts images into patches of {encoder.patch_size} px: their side has to be a multiple of "
            f"that, not {size} px"
        )


def build_full_model(name: str) -> nn.Module:
    """Builds the whole model, with its classifier, that an encoder of timm or torchvision is a part of.

    Args:
        name: The encoder's name, none of OWN.

    Returns:
        A model for its names and shapes alone: on the meta device where it can be built there, without numbers, and
        otherwise with random weights.
    """
    if name.startswith(TORCHVISION):
        from torchvision.models import get_model

        build = partial(get_model, name.removeprefix(TORCHVISION), weights=None)
    else:
        import timm

        build = partial(timm.create_model, name, pretrained=False)
    try:
        with torch.device("meta"):
            return build()
    except (NotImplementedError, RuntimeError):  # it computes with numbers while it is built, as RegNets do
        with torch.random.fork_rng():
            return build()


def feature_prefix(encoder: nn.Module) -> str:
    """Returns what timm puts before the names of the weights of a model that it wraps whole.

    Args:
        encoder: An encoder of timm, made with features_only.

    Returns:
        "model.", "body.", or "" for a model that is not wrapped whole.
    """
    children = [name for name, _ in encoder.named_children()]
    return f"{children[0]}." if children in (["model"], ["body"]) else ""


def build_size(name: str, built: int, size: int) -> int | None:
    """Returns the image size that `build` has to be given for a trained encoder when it is used at another size.

    Args:
        name: The encoder's name.
        built: The image side in pixels that it was built for.
        size: The image side that it is used at.

    Returns:
        `built` if an encoder built for `size` would be another one, by its stem or by its position embeddings.
    """
    if built == size or not depends_on_size(name):
        return None
    other_stem = (built < SMALL_IMAGE_SIZE) != (size < SMALL_IMAGE_SIZE)
    return built if name in OWN or other_stem or (not name.startswith(TORCHVISION) and is_sized(name)) else None


def depends_on_size(name: str) -> bool:
    """Returns whether `build` may give different encoders for different image sizes.

    Args:
        name: The encoder's name.
    """
    return not is_own(name) or name == VIT


def published_size(name: str) -> int:
    """Returns the image side in pixels that an encoder is built for which gets a library's published weights.

    Args:
        name: The encoder's name, none of OWN.

    Raises:
        UserError: If there is no encoder of this name.
    """
    if name.startswith(TORCHVISION):
        return SMALL_IMAGE_SIZE
    try:
        return native_size(name)
    except Exception as error:
        raise UserError(f"encoder {name!r} cannot be built{_why_not(name, SMALL_IMAGE_SIZE, error)}") from error


def has_small_stem(name: str, built: int) -> bool:
    """Returns whether `build` gives an encoder a stem for small images in place of its own.

    Args:
        name: The encoder's name.
        built: The image side in pixels that it is built for.
    """
    return not is_own(name) and built < SMALL_IMAGE_SIZE and not is_sized(name)


def _small_stem(name: str, encoder: nn.Module, size: int) -> None:
    layers = dict(encoder.named_children())
    stem = layers.get("conv1")
    if "maxpool" not in layers or not isinstance(stem, nn.Conv2d) or not _is_resnet(name):
        raise UserError(
            f"encoder {name!r} needs images of at least {SMALL_IMAGE_SIZE} px, these are {size} px: "
            "use convnet or a plain timm ResNet such as resnet18, which gets a stem for small images"
        )
    stem = nn.Conv2d(3, stem.out_channels, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    assert isinstance(encoder, nn.ModuleDict), "timm's features_only makes one of every ResNet"
    encoder["conv1"] = stem
    encoder["maxpool"] = nn.Identity()


def _is_resnet(name: str) -> bool:
    from timm.models.resnet import ResNet

    return isinstance(on_meta(name), ResNet)


@torch.no_grad()
def describe(encoder: nn.Module, name: str, size: int) -> EncoderInfo:
    """Measures an encoder's stages by forward passes of blank images.

    Widths are measured at the images' own size, strides at PROBE_SIZE, which every stride divides, or also at
    that size if the encoder takes no other.

    Args:
        encoder: On the CPU; its mode, training or evaluation, is restored.
        name: Its name.
        size: The image side in pixels that it is used at.

    Raises:
        UserError: If it gives no maps, or none is left at this size.
    """
    training = encoder.training
    encoder.eval()
    if isinstance(encoder, TokenEncoder):
        _check_patches(name, encoder, size)
    try:
        maps = encoder(torch.zeros(1, 3, size, size))
        info = getattr(encoder, "feature_info", None)  # timm's encoders have one
        widths = [m.shape[1] for m in maps] if info is None else info.channels()
        if not all(m.ndim == 4 and m.shape[1] == width for m, width in zip(maps, widths)):
            raise UserError(
                f"encoder {name!r} gives no maps of [channels, height, width]: choose another, such as timm's"
            )
        strides = _strides(encoder, maps, size)
    except (AssertionError, RuntimeError) as error:
        message = str(error).splitlines()[0]
        raise UserError(f"encoder {name!r} cannot take images of {size} px: {message}") from error
    finally:
        encoder.train(training)
    if isinstance(encoder, TokenEncoder):
        return EncoderInfo(name, tuple(widths), strides, encoder.patch_size, encoder.prefix)
    return EncoderInfo(name, tuple(widths), strides)


def _strides(encoder: nn.Module, maps: list[Tensor], size: int) -> tuple[int, ...]:
    """Returns the stride of each stage, 0 for one that is a single vector of any image."""
    probe = PROBE_SIZE
    if isinstance(encoder, TokenEncoder):
        probe = PROBE_SIZE // encoder.patch_size * encoder.patch_size
    try:
        probed = encoder(torch.zeros(1, 3, probe, probe))
    except (AssertionError, RuntimeError):  # built for one size alone
        return tuple(round(size / m.shape[2]) for m in maps)
    return tuple(0 if m.shape[2] == 1 else probe // m.shape[2] for m in probed)


def weights(encoder: nn.Module) -> dict[str, Tensor]:
    """Returns the weights and buffers by name, on the CPU and contiguous, as files want them."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}


def digest(encoder: nn.Module) -> str:
    """Returns the sha256, in hexadecimal, of the names, dtypes, shapes and bytes of all weights and buffers."""
    total = hashlib.sha256()
    for name, tensor in sorted(weights(encoder).items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
