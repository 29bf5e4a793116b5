"""Defines this project's own encoders: small networks for small images, and raw pixels as a baseline."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ssl_core.encoders.tokens import TokenEncoder


class ConvNet(nn.Module):
    """Computes three stages of two 3x3 convolutions with batch norm (or none) and ReLU; each stage halves the map.

    Args:
        widths: Channels of each stage.
        norm: Whether convolutions are followed by batch norm; without it they have biases.
    """

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
    """Computes the network in network that RotNet's CIFAR-10 experiments use: four blocks of three convolutions.

    Each convolution has batch norm and ReLU; the first two blocks end in a pooling that halves the map. Source: Gidaris
    et al. 2018, arXiv:1803.07728, section 4.1; Lin et al. 2014, arXiv:1312.4400.
    """

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


def small_vit(size: int) -> TokenEncoder:
    """Builds a vision transformer for small images, with random weights.

    Args:
        size: The images' side in pixels.
    """
    from timm.models.vision_transformer import VisionTransformer  # takes two seconds, which few commands need

    return TokenEncoder(VisionTransformer(dynamic_img_size=True, **small_vit_options(size)))


def small_vit_options(size: int) -> dict[str, Any]:
    """Returns the options of timm's VisionTransformer that make it `vit-small-images`: 4 blocks of width 64, 2 heads.

    Patches have 4 px below 64 px and 8 px from there, so that 32 and 64 px are 64 patches. Why these numbers: see
    docs/log.md.

    Args:
        size: The images' side in pixels.
    """
    patch = 4 if size < 64 else 8
    return dict(img_size=size, patch_size=patch, embed_dim=64, depth=4, num_heads=2, num_classes=0)


class RawPixels(nn.Module):
    """Returns the image itself, averaged to 8x8 cells, as a baseline without an encoder.

    The one map is [b, 48, 2, 2]: 4x4 cells of three channels in each of its own cells, so that averaging a map to 2x2
    cells, as for any encoder's features, loses nothing.
    """

    def forward(self, x: Tensor) -> list[Tensor]:
        return [F.pixel_unshuffle(F.adaptive_avg_pool2d(x, 8), 4)]

    def pixel_maps(self, x: Tensor) -> list[Tensor]:
        """Returns the image itself, for what asks about each pixel: there are no cells to average it to."""
        return [x]


VIT, PIXELS = "vit-small-images", "raw-pixels"
# Each builds an encoder for images of a side in pixels, which only VIT looks at
OWN: dict[str, Callable[[int], nn.Module]] = {
    "convnet": lambda size: ConvNet(),
    "convnet-plain": lambda size: ConvNet(norm=False),
    "nin": lambda size: NIN(),
    PIXELS: lambda size: RawPixels(),
    VIT: small_vit,
}
