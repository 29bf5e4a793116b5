"""Encodes images by a dictionary of patches: one layer, without a network, and a floor that deserves the name.

Source: Coates, Lee and Ng 2011, "An analysis of single-layer networks in unsupervised feature learning" (AISTATS).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PREFIX = "kmeans-"  # before the number of centroids, in an encoder's name
PATCH = 6  # pixels, in section 4.4 of the source the best with one pixel from one patch to the next
SIDE = 32  # pixels that larger images are averaged to, as those of STL-10 in the source
VALUES = 3 * PATCH**2
CONTRAST = 10.0  # added to a patch's variance, in gray levels squared, against noise in flat patches
IMAGES = {"cpu": 2, "cuda": 64}  # that are encoded at a time: a processor's cache holds the distances of few


class PatchDictionary(nn.Module):
    """Computes, for each quadrant of an image, how near its patches are to each centroid.

    A patch of 6x6 px is taken at every pixel, standardized by its own mean and standard deviation, and whitened. Its
    activation of a centroid is max(0, m - d) of the distance d to that centroid and the mean m of its distances to all:
    the triangle activation of section 3.2.1. The one map holds the mean activations of four quadrants.

    There is nothing in it to train by gradients: ssl_core.encoders.kmeans learns it.

    Args:
        centroids: How many centroids there are.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    patch_mean: Tensor
    whitening: Tensor
    centroids: Tensor

    def __init__(self, centroids: int):
        super().__init__()
        self.register_buffer("pixel_mean", torch.zeros(3))
        self.register_buffer("pixel_std", torch.ones(3))
        self.register_buffer("patch_mean", torch.zeros(VALUES))
        self.register_buffer("whitening", torch.eye(VALUES))
        self.register_buffer("centroids", torch.zeros(centroids, VALUES))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Encodes images.

        Args:
            x: [b, 3, h, w], pixels standardized by `pixel_mean` and `pixel_std`, those of the images that it is of.

        Returns:
            [[b, centroids, 2, 2]].
        """
        tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        if tracing or torch.compiler.is_compiling():  # as exports do, for any number of images
            return [self._quadrants(x)]
        return [torch.cat([self._quadrants(part) for part in x.split(IMAGES.get(x.device.type, 2))])]

    def _quadrants(self, x: Tensor) -> Tensor:
        pixels = shrink(x.float() * self.pixel_std.view(3, 1, 1) + self.pixel_mean.view(3, 1, 1))
        patches = F.unfold(pixels, PATCH).transpose(1, 2)
        white = (standardize(patches) - self.patch_mean) @ self.whitening
        rows = white.flatten(0, 1)
        # |p - c|^2 = |c|^2 - 2 p c + |p|^2
        squares = torch.addmm(self.centroids.square().sum(1), rows, self.centroids.T, alpha=-2)
        distances = squares.add_(rows.square().sum(1, keepdim=True)).clamp_(min=0).sqrt_()
        near = distances.mean(1, keepdim=True).sub(distances).relu_()
        places = (-1, pixels.shape[2] - PATCH + 1, pixels.shape[3] - PATCH + 1)
        return F.adaptive_avg_pool2d(near.unflatten(0, places).movedim(3, 1), 2)


def dictionary_name(centroids: int) -> str:
    """Returns the encoder's name of a dictionary of so many patches, as `ssl_core.encoders.build.build` takes it."""
    return f"{PREFIX}{centroids}"


def shrink(pixels: Tensor) -> Tensor:
    """Averages images, [b, 3, h, w], to SIDE px along sides that are longer."""
    height, width = pixels.shape[2:]
    return F.adaptive_avg_pool2d(pixels, (min(height, SIDE), min(width, SIDE)))


def standardize(patches: Tensor) -> Tensor:
    """Standardizes patches, [..., VALUES] in 0..255, each by its own mean and standard deviation."""
    centered = patches - patches.mean(-1, keepdim=True)
    return centered / (centered.square().sum(-1, keepdim=True) / (VALUES - 1) + CONTRAST).sqrt()
