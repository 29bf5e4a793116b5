"""BYOL, VICReg and DINO against their papers' equations, written out with numpy."""

import numpy as np
import pytest
import torch
from support.synthetic_images import FORMAT, batch_of, pretext

from kernels.random import RandomBits
from ssl_core.augmentations import ContrastiveAugmentation
from ssl_core.errors import UserError
from ssl_core.tasks.dino import Center


def made(model, count: int = 6):
    batch = batch_of(count)
    return model.task.make_batch(batch, RandomBits(batch.ids, batch.epochs, 0), FORMAT)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_byol_is_the_papers_loss():
    """Equation 2: of each view's prediction against the teacher's projection of the other one, in both directions."""
    model = pretext("byol").eval()
    with torch.no_grad():  # a teacher that is not the student
        model.task.teacher.head[0].weight.mul_(-1)
        inputs, targets = made(model)
        losses = model.task.loss(model(inputs), targets)
        student = model.task.predictor(model.task.projector(model.encoder(inputs)[-1].mean((2, 3))))
        teacher = model.task.teacher(inputs)
    q, z = unit(student.double().numpy()), unit(teacher.double().numpy())
    for i in range(6):
        one, other = 2 * i, 2 * i + 1
        expected = ((q[one] - z[other]) ** 2).sum() + ((q[other] - z[one]) ** 2).sum()
        assert losses[i].item() == pytest.approx(expected, rel=1e-4)


def vicreg_terms(z: np.ndarray) -> tuple[float, float]:
    """Equations 1 to 4, for one view's features [n, d]."""
    n, d = z.shape
    variance = np.mean([max(0.0, 1 - np.sqrt(z[:, j].var(ddof=1) + 1e-4)) for j in range(d)])
    centered = z - z.mean(0)
    c = sum(np.outer(row, row) for row in centered) / (n - 1)
    return variance, sum(c[i, j] ** 2 for i in range(d) for j in range(d) if i != j) / d


def test_vicreg_is_the_papers_loss():
    model = pretext("vicreg", projection_dim=16, invariance=20.0, variance=30.0, covariance=2.0)
    inputs, targets = made(model)
    predictions = model(inputs)
    losses = model.task.loss(predictions, targets)
    z = predictions[0].detach().double().numpy()
    (v1, c1), (v2, c2) = vicreg_terms(z[:, 0]), vicreg_terms(z[:, 1])
    for i in range(6):
        apart = ((z[i, 0] - z[i, 1]) ** 2).mean()
        assert losses[i].item() == pytest.approx(20 * apart + 30 * (v1 + v2) / 2 + 2 * (c1 + c2), rel=1e-4)


def test_vicreg_leaves_broken_images_out():
    model = pretext("vicreg", "convnet-plain", projection_dim=16)
    (images, _), targets = made(model)
    good = torch.tensor([1.0, 0, 1, 1, 0, 1])
    features = model((images, good))
    few = features[0][good > 0].detach().double().numpy()
    (v1, c1), (v2, c2) = vicreg_terms(few[:, 0]), vicreg_terms(few[:, 1])
    assert features[1].item() == pytest.approx((v1 + v2) / 2, rel=1e-4)
    assert features[2].item() == pytest.approx(c1 + c2, rel=1e-4)
    alone = model.task.loss(model((images, torch.tensor([1.0, 0, 0, 0, 0, 0]))), targets)
    assert not alone.any()


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_dino_has_the_papers_gradient_and_is_zero_at_agreement():
    """Equation 3, a sum over pairs of different crops, here its mean; less what does not depend on the student."""
    model = pretext("dino", prototypes=12, local_crops=3)
    model.task.center.mean.copy_(torch.randn(12) * 0.02)
    inputs, targets = made(model)
    student, teacher = model(inputs)
    assert student.shape == (6, 5, 12) and teacher.shape == (6, 2, 12)
    losses = model.task.loss((student, teacher), targets)
    s, t = student.detach().double().numpy(), teacher.double().numpy()
    center = model.task.center.mean.double().numpy()
    for i in range(6):
        p = softmax((t[i] - center) / 0.04)
        logs = np.log(softmax(s[i] / 0.1))
        pairs = [(a, b) for a in range(2) for b in range(5) if a != b]
        cross = np.mean([-(p[a] * logs[b]).sum() for a, b in pairs])
        entropy = np.mean([-(p[a] * np.log(p[a])).sum() for a, _ in pairs])
        assert losses[i].item() == pytest.approx(cross - entropy, rel=1e-3)
    model.task.center.mean.zero_()
    same = torch.randn(1, 12)
    agreed = model.task.loss(((same * 0.1 / 0.04).expand(2, 5, 12), same.expand(2, 2, 12)), targets)
    assert torch.allclose(agreed, torch.zeros(2), atol=1e-5)


def test_dinos_crops_have_two_sizes_and_show_two_shares():
    model = pretext("dino", local_crops=3)
    (large, small), weights = made(model, 4)
    assert large.shape == (8, 3, 32, 32) and small.shape == (12, 3, 14, 14) and weights.shape == (4,)
    (large, small), _ = made(pretext("dino", "vit-small-images", local_crops=0), 4)
    assert large.shape == (8, 3, 32, 32) and len(small) == 0


def test_the_center_moves_a_tenth_of_the_way():
    center = Center(2)
    center.update(torch.tensor([[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]]), torch.tensor([1.0, 1.0, 0.0]))
    assert center.mean.tolist() == pytest.approx([0.2, 0.3])
    center.update(torch.ones(1, 2), torch.zeros(1))  # nothing counts
    assert center.mean.tolist() == pytest.approx([0.2, 0.3])


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("vicreg", {"variance": -1.0}),
        ("vicreg", {"invariance": float("nan")}),
        ("dino", {"student_temperature": 0.0}),
        ("dino", {"local_min_area": 0.4}),
        ("dino", {"views": ContrastiveAugmentation(min_area=0.05)}),
        ("dino", {"local_crops": -1}),
    ],
)
def test_refuses_what_cannot_work(task, options):
    with pytest.raises(UserError, match=f"{task}: "):
        pretext(task, **options)
