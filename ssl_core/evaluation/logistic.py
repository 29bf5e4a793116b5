"""Fits multinomial logistic regression with an L2 penalty by L-BFGS."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def fit_logistic(x: Tensor, y: Tensor, classes: int, c: float, iterations: int = 100) -> nn.Linear:
    """Fits a linear classifier: the same optimum as scikit-learn's LogisticRegression(C=c).

    It minimizes the summed cross-entropy plus |weight|^2 / (2 c); the bias is not penalized. It starts from zero, so
    that no random number is drawn. Source: L-BFGS (Liu and Nocedal 1989) with a line search for the strong Wolfe
    conditions.

    Args:
        x: [n, d] float32 features.
        y: [n] int64 labels, from 0 to `classes` - 1.
        classes: The number of classes.
        c: Inverse strength of the penalty.
        iterations: Iterations of L-BFGS at most; function evaluations are at most twice as many.

    Returns:
        A layer [d] -> [classes] on the device of `x`, without gradients.
    """
    layer = nn.Linear(x.shape[1], classes, device=x.device)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    steps = torch.optim.LBFGS(
        layer.parameters(),
        max_iter=iterations,
        max_eval=2 * iterations,
        history_size=10,
        tolerance_grad=1e-5,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )
    penalty = 1 / (2 * c * len(x))

    def closure() -> Tensor:
        steps.zero_grad()
        loss = F.cross_entropy(layer(x), y) + penalty * layer.weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        steps.step(closure)
    return layer.requires_grad_(False)
