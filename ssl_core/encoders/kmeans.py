"""Learns a dictionary of patches from unlabeled images by spherical k-means.

Source: Coates, Lee and Ng 2011, "An analysis of single-layer networks in unsupervised feature learning" (AISTATS); the
k-means of unit directions is that of Coates and Ng 2012, "Learning feature representations with k-means".
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_core.data.dataset import Source
from ssl_core.data.loaders.select import evaluation_batches
from ssl_core.data.sampler import make_sampler
from ssl_core.encoders.patch_dictionary import PATCH, VALUES, PatchDictionary, shrink, standardize
from ssl_core.errors import UserError

IMAGES = 10_000  # that patches are taken from, at most
PATCHES = 400_000  # of all images together, as in the source
ITERATIONS = 10  # after which, by the second source, little changes
WHITENING = 0.1  # added to the variance of each direction, so that noise is not blown up
ROWS = 4096  # patches that are compared with all centroids at a time


@dataclass(frozen=True)
class Learned:
    """Holds a dictionary, and what it was learned from.

    Attributes:
        dictionary: On the CPU, in evaluation mode.
        images: How many images there were.
        macs: Multiply-accumulates of all comparisons of patches with centroids.
    """

    dictionary: PatchDictionary
    images: int
    macs: int


@torch.no_grad()
def learn_dictionary(source: Source, centroids: int, seed: int, device: torch.device, threads: int) -> Learned:
    """Learns a dictionary of the training images of a dataset, whose labels it does not look at.

    Args:
        source: The dataset.
        centroids: How many patches the dictionary has.
        seed: Decides which images are taken, which patches of them, and the first centroids.
        device: Where to compute.
        threads: Threads that decode images.

    Raises:
        UserError: If none of the images can be decoded.
    """
    order = make_sampler(source.train, seed)
    ids = order.at(np.arange(min(IMAGES, len(source.train))))[0]
    generator = torch.Generator().manual_seed(seed)
    drawn, images = [], 0
    for batch in evaluation_batches(source, "train", ids, device, threads):
        pixels = shrink(batch.images[batch.weights > 0].permute(0, 3, 1, 2).float())
        drawn.append(_draw_patches(pixels, -(-PATCHES // len(ids)), generator))
        images += len(pixels)
    if not images:
        raise UserError(f"{source.name}: none of {len(ids):,} training images can be decoded")
    patches = standardize(torch.cat(drawn))
    dictionary = PatchDictionary(centroids).to(device)
    dictionary.pixel_mean.copy_(torch.tensor(source.mean))
    dictionary.pixel_std.copy_(torch.tensor(source.std))
    dictionary.patch_mean.copy_(patches.mean(0))
    patches -= dictionary.patch_mean
    dictionary.whitening.copy_(_whitening(patches))
    dictionary.centroids.copy_(_spherical_kmeans(patches @ dictionary.whitening, centroids, generator))
    return Learned(dictionary.cpu().eval(), images, ITERATIONS * len(patches) * centroids * VALUES)


def _draw_patches(pixels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Returns `count` patches of each image at random places, [b * count, VALUES], channel by channel as F.unfold."""
    b, channels, height, width = pixels.shape
    free = height - PATCH + 1, width - PATCH + 1
    starts = [torch.randint(n, (b, count, 1), generator=generator).to(pixels.device) for n in free]
    rows, columns = (start + torch.arange(PATCH, device=pixels.device) for start in starts)
    places = (rows[..., :, None] * width + columns[..., None, :]).view(b, 1, count * PATCH**2).expand(-1, channels, -1)
    found = pixels.flatten(2).gather(2, places).unflatten(2, (count, PATCH**2))
    return found.transpose(1, 2).reshape(b * count, VALUES)


def _whitening(centered: Tensor) -> Tensor:
    """Returns the symmetric matrix that makes the values of patches uncorrelated (ZCA), [VALUES, VALUES]."""
    covariance = (centered.T @ centered).double() / (len(centered) - 1)
    variances, directions = torch.linalg.eigh(covariance)
    return (directions * (variances + WHITENING).rsqrt() @ directions.T).float()


def _spherical_kmeans(patches: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Returns the means of clusters of patches, [count, VALUES], each with the nearest direction.

    Directions start at random and count in their cluster as one patch, so that none is ever empty.
    """
    directions = F.normalize(torch.randn(count, VALUES, generator=generator)).to(patches.device)
    means = directions
    for _ in range(ITERATIONS):
        nearest = torch.cat([(rows @ directions.T).argmax(1) for rows in patches.split(ROWS)])
        sums = directions.clone().index_add_(0, nearest, patches)
        means = sums / (torch.bincount(nearest, minlength=count)[:, None] + 1)
        directions = F.normalize(means)
    return means
