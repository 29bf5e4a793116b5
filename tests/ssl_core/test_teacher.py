"""A teacher follows its student as the schedule says, and has no part in what is trained or exported."""

import math

import pytest
import torch
from support.synthetic_images import FORMAT, batch_of, pretext
from torch import nn

from ssl_core.batch_norm import GlobalBatchNorm1d, GlobalBatchNorm2d
from ssl_core.collectives import ddp_ignored
from ssl_core.encoders.small import ConvNet
from ssl_core.errors import UserError
from ssl_core.macs import encoder_macs
from ssl_core.teacher import Teacher
from ssl_core.train import TrainConfig, train


@pytest.mark.parametrize(("progress", "momentum"), [(0.0, 0.9), (0.5, 0.95), (1.0, 1.0)])
def test_a_teacher_moves_by_its_momentum(progress, momentum):
    """Along half a cosine from 0.9 to 1: 0.95 half way."""
    encoder, head = ConvNet(), nn.Linear(128, 4)
    teacher = Teacher(encoder, head, 0.9)
    before = {name: tensor.clone() for name, tensor in teacher.named_buffers()}
    with torch.no_grad():
        for parameter in (*encoder.parameters(), *head.parameters()):
            parameter.add_(1.0)
    teacher.update(encoder, head, progress)
    for name, tensor in teacher.named_buffers():
        assert torch.allclose(tensor - before[name], torch.tensor(1 - momentum), atol=1e-6), name


def test_a_teacher_is_not_trained_but_saved():
    model = pretext("byol")
    names = {f"task.teacher.{name}" for name, _ in model.task.teacher.named_buffers()}
    assert names and set(ddp_ignored(model)) == names and names < set(model.state_dict())
    assert not names & {name for name, _ in model.named_parameters()}
    assert not any("running" in name for name in names)


def test_a_teacher_starts_as_the_student_in_training():
    """Also where the encoder has batch norm, whose statistics are the batch's in both."""
    model = pretext("byol").train()
    images = torch.randn(6, 3, 24, 24)
    wanted = model.task.projector(model.encoder(images)[-1].mean((2, 3)))
    assert torch.allclose(model.task.teacher(images), wanted, atol=1e-5)
    assert not model.task.teacher(images).requires_grad
    assert torch.equal(model.eval().task.teacher(images), model.train().task.teacher(images))


def test_nothing_is_dropped_in_a_teacher():
    """Swin has drop path in training, with which two passes of a student differ."""
    model = pretext("byol", "swin_tiny_patch4_window7_224", 64).train()
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(model.task.teacher(images), model.task.teacher(images))
    assert not torch.equal(model.encoder(images)[-1], model.encoder(images)[-1])


def test_teachers_within_multi_follow_their_student():
    model = pretext("multi", tasks=("rotnet", "byol"))
    teacher = model.task.parts["byol"].teacher
    first = {name: tensor.clone() for name, tensor in teacher.named_buffers()}
    [step] = train(model, [batch_of(8)], FORMAT, TrainConfig(steps=2, seed=0, optim=model.task.config.optim))
    assert step.metrics["byol/loss"] > 0
    assert not torch.equal(teacher.encoder.stages[0][0].weight, first["encoder.stages.0.0.weight"])


@pytest.mark.parametrize("task", ["byol", "dino"])
def test_a_teachers_pass_costs_a_third_of_a_students(task):
    """A forward pass without a backward, of what it sees: all of BYOL's views, and the two large of DINO's crops."""
    options = {"local_crops": 0} if task == "dino" else {}
    model = pretext(task, **options)
    without = pretext("simclr", views=model.task.config.views)
    assert encoder_macs(model, 32) == encoder_macs(without, 32) * 4 // 3
    teacher = model.task.teacher.encoder
    assert isinstance(teacher, ConvNet), "counting puts back what it replaced"


@pytest.mark.parametrize("momentum", [-0.1, 1.0, math.nan])
def test_a_momentum_that_cannot_work_is_refused(momentum):
    with pytest.raises(UserError, match="--teacher-momentum"):
        pretext("byol", teacher_momentum=momentum)


def test_batch_norm_on_one_worker_is_torchs():
    ours, theirs = GlobalBatchNorm1d(5), nn.BatchNorm1d(5)
    x = torch.randn(7, 5)
    assert torch.equal(ours(x), theirs(x)) and torch.equal(ours.running_var, theirs.running_var)


def test_batch_norm_of_maps_on_one_worker_is_torchs():
    ours, theirs = GlobalBatchNorm2d(5), nn.BatchNorm2d(5)
    for x in (torch.randn(7, 5, 3, 2) * 4 + 1, torch.randn(2, 5, 4, 6).contiguous(memory_format=torch.channels_last)):
        assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    assert torch.allclose(ours.running_var, theirs.running_var) and torch.allclose(
        ours.running_mean, theirs.running_mean
    )
    assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-6)
