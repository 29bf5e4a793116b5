"""A part of a batch has what a task needs: others to compare with, and enough for batch norm."""

import numpy as np
import pytest
from support.synthetic_images import FORMAT, batch_of, pretext

from kernels.random import RandomBits
from ssl_core.data.sampler import batch_positions
from ssl_core.errors import UserError
from ssl_core.memory_bank import MemoryOptions
from ssl_core.parts import check_one_image, check_parts, smallest_part
from ssl_core.task import tasks

CONTRAST = {
    "simclr": {},
    "vicreg": {},
    "pirl": {},
    "npid": {"memory": MemoryOptions(memory_warmup=1)},
    "multi": {"tasks": ("rotnet", "simclr")},
}
ALONE = {
    "pirl": {"memory": MemoryOptions(memory_warmup=0)},
    "npid": {},
    "multi": {},
    "rotnet": {},
    "jigsaw": {},
    "context": {},
    "mae": {},
    "droppos": {},
    "byol": {},
    "dino": {},
    "relative": {},
    "colorize": {},
}


def config(task: str, **options):
    return tasks()[task].Config(**options)


def test_the_smallest_part_is_the_one_that_training_makes():
    for batch in range(1, 14):
        for world in range(1, batch + 1):
            slices = [batch_positions(3, batch, rank, world) for rank in range(world)]
            for grad_accumulation in range(1, 6):
                count = min(grad_accumulation, *map(len, slices))
                parts = [np.array_split(own, count) for own in slices]
                sizes = np.array([[len(part) for part in own] for own in parts])
                assert smallest_part(batch, grad_accumulation, world) == (sizes.min(), sizes.sum(0).min())


@pytest.mark.parametrize("task", tasks())
def test_tasks_that_learn_nothing_of_one_image_say_so(task):
    """Whether the encoder gets a gradient from an image alone, which has not been seen before."""
    options = {"memory": MemoryOptions(memory_warmup=1)} if task == "npid" else {}
    for more in ({}, ALONE.get(task, {})):
        model, batch = pretext(task, **{**options, **more}).train(), batch_of(1)
        inputs, targets = model.task.make_batch(batch, RandomBits(batch.ids, batch.epochs, 0), FORMAT)
        model.task.loss(model(inputs), targets).sum().backward()
        learns = any(p.grad is not None and p.grad.abs().max() > 1e-6 for p in model.encoder.parameters())
        assert model.task.config.side_by_side == (1 if learns else 2)


@pytest.mark.parametrize(("task", "options"), CONTRAST.items())
@pytest.mark.parametrize(
    ("batch", "grad_accumulation", "worlds", "images", "said"),
    [
        (
            1,
            1,
            [1],
            20,
            "expected at least 2, and --batch 1 with --grad-accumulation 1 leaves 1: give a larger --batch$",
        ),
        (4, 4, [1], 20, "with --grad-accumulation 4 leaves 1: give a larger --batch or a smaller --grad-accumulation$"),
        (4, 9, [1], 20, "leaves 1"),
        (5, 3, [1], 20, "leaves 1"),  # parts of 2, 2 and 1
        (4, 4, range(1, 5), 20, "leaves 1"),  # elastic: on one worker
        (4, 1, [1], 1, "with each other: expected at least 2, got 1"),
        (8, 1, [1], 1, "expected at least 2, got 1"),
        (2, 1, range(1, 4), 20, "2 images cannot be shared by 3 workers"),
        (4, 2, [1], 20, None),
        (5, 2, [1], 20, None),
        (4, 4, [2, 4], 20, None),  # workers compare with each other's
        (8, 1, [1], 2, None),
    ],
)
def test_an_image_has_others_beside_it(task, options, batch, grad_accumulation, worlds, images, said):
    one = config(task, batch=batch, **options)
    if said is None:
        check_parts(one, grad_accumulation, worlds, images)
        return
    with pytest.raises(UserError, match=said):
        check_parts(one, grad_accumulation, worlds, images)


@pytest.mark.parametrize(("task", "options"), ALONE.items())
def test_what_compares_nothing_within_a_batch_may_see_one_image(task, options):
    assert check_parts(config(task, batch=4, **options), 4, [1, 4], 4) == 1
    assert check_parts(config(task, batch=9, **options), 2, range(1, 4), 4) == 1
    assert check_parts(config(task, batch=9, **options), 2, [1, 2], 4) == 2
    with pytest.raises(UserError, match="3 images cannot be shared by 4 workers"):
        check_parts(config(task, batch=3, **options), 1, [4], 4)


@pytest.mark.parametrize(
    ("task", "encoder", "options", "refused"),
    [
        ("jigsaw", "convnet", {"orders": 1}, True),
        ("jigsaw", "convnet", {"orders": 2}, False),
        ("rotnet", "convnet", {"rotations": "one"}, False),
        ("rotnet", "resnet18", {"rotations": "one", "crop": 0.4}, True),  # 26 px, a last map of 1x1
        ("rotnet", "resnet18", {"rotations": "all", "crop": 0.4}, False),
    ],
)
def test_batch_norm_of_one_image_is_refused_where_it_has_one_cell(task, encoder, options, refused):
    model = pretext(task, encoder, 64, **options)
    if not refused:
        check_one_image(model, 64)
        return
    with pytest.raises(UserError, match=f"{task}: a part of a batch may be one image, and batch norm needs more"):
        check_one_image(model, 64)
