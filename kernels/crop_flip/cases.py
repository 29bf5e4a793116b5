"""Example arguments of the resampled crops, and what to compile ahead of time."""

from collections.abc import Iterator
from itertools import islice

import torch

from kernels import registry
from kernels.crop_flip.regions import equal_regions
from kernels.crop_flip.triton_kernel import ONE_SIZE, SEVERAL_SIZES, choose, constants, crop_flip_kernel
from kernels.examples import MEAN, POINTERS, SCALES, STD, image_batches, integers

BATCHES = 11  # of which crops of several sizes are made: as many as have shapes of their own


def _mixed_sizes(generator, c, sizes):
    """Draws (images, regions) of images of these sizes, a few unused bytes around each, and some of them again."""
    starts, end = [], 0
    for h, w in sizes:
        starts.append(end := end + 5)
        end += h * w * c
    regions = torch.tensor([(start, *size) for start, size in zip(starts, sizes)])
    order = integers(generator, (len(sizes) + 2,), 0, len(sizes))
    return integers(generator, (end + 3,), 0, 256, torch.uint8), regions[order]


def examples(generator: torch.Generator) -> Iterator[tuple]:
    """Generates example arguments on the CPU, drawn from the generator.

    Yields:
        Positional arguments of `crop_flip_op`.
    """
    for index, (images, size, mean, std, dtype, last) in enumerate(image_batches(generator)):
        b, h, w, c = images.shape
        flips = integers(generator, (b,), 0, 2, torch.bool if last else torch.int8)
        boxes = integers(generator, (b, 4), -3, max(h, w) + 3, torch.int64 if last else torch.int16)
        images, regions = images.reshape(-1), equal_regions(b, h, w, c, device="cpu")
        yield images, regions, flips, boxes, size, mean, std, dtype, last
        if index % 2 == 0:  # enlarged, and a box that is the image
            boxes = torch.tensor([[0, 0, h, w]]).expand(b, 4)
            yield images, regions, flips, boxes, max(h, w) + 5, mean, std, dtype, last
    for size, dtype in ((9, torch.float32), (16, torch.uint8)):
        images, regions = integers(generator, (70 * 90 * 3,), 0, 256, torch.uint8), torch.tensor([[0, 70, 90]])
        boxes = torch.tensor([[1, 2, 67, 83]])
        yield images, regions, torch.ones(1).int(), boxes, size, list(MEAN), list(STD), dtype, False
    for c, size, dtype, last in (
        (3, 20, torch.uint8, True),
        (1, 33, torch.float32, False),
        (3, 7, torch.bfloat16, True),
    ):
        images, regions = _mixed_sizes(generator, c, ((31, 8), (1, 1), (50, 47), (9, 60), (64, 3)))
        boxes, flips = (integers(generator, (len(regions), *n), -3, 64, torch.int32) for n in ((4,), ()))
        yield images, regions, flips, boxes, size, list(MEAN[:c]), list(STD[:c]), dtype, last


def examples_of_several(generator: torch.Generator) -> Iterator[tuple]:
    """Generates example arguments on the CPU, drawn from the generator.

    Yields:
        Positional arguments of `multi_crop_op`.
    """
    for index, (images, size, mean, std, dtype, last) in enumerate(islice(image_batches(generator), BATCHES)):
        b, h, w, c = images.shape
        kinds = ([size, size // 2 + 1], [1, 2]), ([size], [2]), ([size + 2, size + 9, size], [1, 1, 1])
        sizes, counts = kinds[index % 3]
        flips = integers(generator, (b, sum(counts)), 0, 2, torch.bool if last else torch.int8)
        boxes = integers(generator, (b, sum(counts), 4), -3, max(h, w) + 3, torch.int64 if last else torch.int16)
        regions = equal_regions(b, h, w, c, device="cpu")
        yield images.reshape(-1), regions, flips, boxes, sizes, counts, mean, std, dtype, last
    for c, sizes, counts, dtype, last in (
        (3, [40, 16], [1, 2], torch.uint8, True),
        (1, [7, 33], [2, 1], torch.float32, False),
        (3, [9, 4], [0, 2], torch.bfloat16, True),
        (3, [9, 4], [0, 0], torch.float16, False),
    ):
        images, regions = _mixed_sizes(generator, c, ((31, 8), (21, 18)))
        crops = (len(regions), sum(counts))
        boxes, flips = (integers(generator, (*crops, *n), -3, 64, torch.int32) for n in ((4,), ()))
        yield images, regions, flips, boxes, sizes, counts, list(MEAN[:c]), list(STD[:c]), dtype, last


def _build(sizes, counts, dtype, last, budget):
    config = choose(sizes, dtype, last)
    return registry.Build(
        crop_flip_kernel,
        {
            "images": "*u8",
            "regions": "*i64",
            "flips": "*i64",
            "boxes": "*i64",
            "outs": (POINTERS[dtype],) * len(sizes),
            **SCALES,
        },
        {**constants(sizes, counts, config["SIDE"]), "C": 3, "LAST": last},
        SEVERAL_SIZES if len(sizes) > 1 else ONE_SIZE,
        warps=config["num_warps"],
        elements=3 * config["SIDE"] ** 2,
        budget=budget,
    )


def builds() -> Iterator[registry.Build]:
    """Lists what to compile ahead of time.

    Yields:
        Builds of `crop_flip_kernel`, for one size.
    """
    for dtype, last, budget in (
        (torch.float32, False, 65),
        (torch.bfloat16, False, 65),
        (torch.uint8, False, 65),
        (torch.bfloat16, True, 74),
        (torch.float32, True, 74),
    ):
        yield _build([224], [1], dtype, last, budget)


def builds_of_several() -> Iterator[registry.Build]:
    """Lists what to compile ahead of time.

    Yields:
        Builds of `crop_flip_kernel`, for the crops of DINO (Caron et al. 2021, arXiv:2104.14294).
    """
    # the code of both sizes is counted, though a program runs that of one
    for dtype, last, budget in (
        (torch.float32, False, 127),
        (torch.bfloat16, False, 128),
        (torch.uint8, True, 140),  # what photometric reads
        (torch.bfloat16, True, 145),
        (torch.float32, True, 145),
    ):
        yield _build([224, 96], [2, 8], dtype, last, budget)
