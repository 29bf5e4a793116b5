"""Encoders: timm's and torchvision's by name, small ones of our own, and raw pixels as a floor.

An encoder maps [b, 3, h, w] to the list of its stages' maps [b, width, h / stride, w / stride], shallow to deep.
"""

import hashlib
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_core.errors import UserError, closest
from ssl_core.task import EncoderInfo

PROBE_SIZE = 256  # pixels that strides are measured at
SMALL_IMAGE_SIZE = 64  # pixels; below this an ImageNet stem leaves nothing to look at


class ConvNet(nn.Module):
    """Three stages of two 3x3 convolutions, each with batch norm (or none) and ReLU; each stage halves the map."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128), norm: bool = True):
        super().__init__()
        self.stages = nn.ModuleList()
        previous = 3
        for width in widths:
            layers: list[nn.Module] = []
            for stride in (2, 1):
                layers += [nn.Conv2d(previous, width, 3, stride, padding=1, bias=not norm)]
                layers += [nn.BatchNorm2d(width)] if norm else []
                layers += [nn.ReLU(inplace=True)]
                previous = width
            self.stages.append(nn.Sequential(*layers))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class NIN(nn.Module):
    """The network in network of RotNet's CIFAR-10 experiments (Gidaris et al. 2018, section 4.1; Lin et al. 2014): four
    blocks of three convolutions, each with batch norm and ReLU; the first two blocks end in a pooling that halves."""

    BLOCKS = ((192, 160, 96, 5), (192, 192, 192, 5), (192, 192, 192, 3), (192, 192, 192, 3))  # widths, first kernel

    def __init__(self):
        super().__init__()
        pools = (nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1), nn.Identity(), nn.Identity())
        self.blocks = nn.ModuleList()
        previous = 3
        for (*widths, first), pool in zip(self.BLOCKS, pools):
            layers: list[nn.Module] = []
            for width, kernel in zip(widths, (first, 1, 1)):
                convolution = nn.Conv2d(previous, width, kernel, padding=kernel // 2, bias=False)
                nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
                layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                previous = width
            self.blocks.append(nn.Sequential(*layers, pool))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps


class RawPixels(nn.Module):
    """No encoder: the image at 8x8 cells, laid out as a 2x2 map so that the one rule for features fits it too."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [F.pixel_unshuffle(F.adaptive_avg_pool2d(x, 8), 4)]


OWN = {
    "convnet": ConvNet,
    "convnet-plain": lambda: ConvNet(norm=False),
    "nin": NIN,
    "raw-pixels": RawPixels,
}
TORCHVISION = "torchvision:"  # before the name of one of its models


class RestandardizedEncoder(nn.Module):
    """An encoder of pixels that were standardized by `wanted`, for pixels standardized by `given`: each is the mean and
    the standard deviation of every channel, in units of 0..255."""

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
    """The encoder `name` for square images of side `size`, initialized at random from `seed`.

    timm ResNets get a CIFAR stem below 64 px (3x3, stride 1, no max-pool: He et al. 2016, section 4.2).
    Raises UserError for a name that nobody knows or an encoder that needs larger images.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name in OWN:
            return OWN[name]()
        if name.startswith(TORCHVISION):
            if size < SMALL_IMAGE_SIZE:
                raise UserError(f"encoder {name!r} needs images of at least {SMALL_IMAGE_SIZE} px, these are {size} px")
            from ssl_core.encoders.torchvision import build_stages

            return build_stages(name.removeprefix(TORCHVISION))
        import timm  # takes two seconds, which most commands need not wait for

        try:
            encoder = timm.create_model(name, pretrained=False, features_only=True)
        except Exception as error:
            near = closest(name, [*OWN, *timm.list_models()])
            hint = f"did you mean {near}? " if near and near != name else ""
            others = ", ".join([*OWN, *timm.list_models(f"*{name}*")[:5]])
            raise UserError(f"encoder {name!r} cannot be built: {error}; {hint}try one of: {others}") from error
        if size < SMALL_IMAGE_SIZE:
            _small_stem(name, encoder, size)
        return encoder


def build_full_model(name: str) -> nn.Module:
    """The whole model of timm or torchvision that the encoder `name` was cut from, with its classifier: names and
    shapes alone, on the meta device, if it can be built there."""
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
    """What timm puts before the names of a model that it wraps whole for its features: "model." or "body.", or ""."""
    children = [name for name, _ in encoder.named_children()]
    return f"{children[0]}." if children in (["model"], ["body"]) else ""


def stem_size(name: str, built: int, size: int) -> int | None:
    """What has to be told to `build` when the encoder `name`, made for images of side `built`, gets those of side
    `size`: `built`, if it had another stem otherwise, else None."""
    return built if name not in OWN and (built < SMALL_IMAGE_SIZE) != (size < SMALL_IMAGE_SIZE) else None


def has_small_stem(name: str, built: int) -> bool:
    """Whether `build` gives the encoder `name` a stem for small images, in place of its own."""
    return stem_size(name, built, SMALL_IMAGE_SIZE) is not None


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
    import timm
    from timm.models.resnet import ResNet

    with torch.device("meta"):
        return isinstance(timm.create_model(name, pretrained=False), ResNet)


@torch.no_grad()
def describe(encoder: nn.Module, name: str, size: int) -> EncoderInfo:
    """Widths and strides of the stages, read off a forward pass of PROBE_SIZE pixels, which every stride divides.

    Raises UserError for an encoder that is not convolutional, or has no map left at images of side `size`.
    """
    training = encoder.training
    encoder.eval()
    try:
        maps = encoder(torch.zeros(1, 3, size, size))
        info = getattr(encoder, "feature_info", None)  # timm's encoders have one
        widths = [m.shape[1] for m in maps] if info is None else info.channels()
        if not all(m.ndim == 4 and m.shape[1] == width for m, width in zip(maps, widths)):
            raise UserError(f"encoder {name!r} gives no maps of [channels, height, width]: choose a convolutional one")
        probed = encoder(torch.zeros(1, 3, PROBE_SIZE, PROBE_SIZE))
    except (AssertionError, RuntimeError) as error:
        message = str(error).splitlines()[0]
        raise UserError(
            f"encoder {name!r} cannot take images of {size} or {PROBE_SIZE} px, choose a convolutional one: {message}"
        ) from error
    finally:
        encoder.train(training)
    return EncoderInfo(name, tuple(widths), tuple(PROBE_SIZE // m.shape[2] for m in probed))


def weights(encoder: nn.Module) -> dict[str, Tensor]:
    """The weights and buffers on the CPU, each laid out as files want it."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}


def digest(encoder: nn.Module) -> str:
    """sha256 over the sorted (name, dtype, shape, bytes) of the weights and buffers."""
    total = hashlib.sha256()
    for name, tensor in sorted(weights(encoder).items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
