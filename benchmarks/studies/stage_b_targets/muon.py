"""The optimizer Muon (arXiv:2502.16982): momentum with orthogonalised steps, for matrices.

torch.optim.Muon accepts two-dimensional weights only; this one accepts 1 x 1 convolutions too.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration, which moves all singular values towards 1."""

ITERATIONS = 5

STEP_RMS = 0.2
"""Root mean square of a step at rate 1, about that of AdamW."""


class Muon(torch.optim.Optimizer):
    """Nesterov momentum with orthogonalised steps; learning rates are comparable to AdamW's."""

    def __init__(
        self, groups: Iterable[dict[str, object]], lr: float, momentum: float = 0.95
    ) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0.01})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        del closure
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                momentum = state.setdefault("momentum", torch.zeros_like(weight))
                momentum.lerp_(weight.grad, 1 - group["momentum"])
                nesterov = torch.lerp(weight.grad, momentum, group["momentum"])
                step = orthogonalise(nesterov.flatten(1)).view_as(weight)
                longer_side = max(weight.shape[0], weight[0].numel())
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(step, alpha=-group["lr"] * STEP_RMS * longer_side**0.5)


def orthogonalise(matrix: Tensor) -> Tensor:
    """An (N, M) matrix with the same singular vectors and all singular values near 1."""
    a, b, c = COEFFICIENTS
    wide = matrix.shape[0] <= matrix.shape[1]
    x: Tensor = matrix if wide else matrix.T
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.T


def is_matrix(weight: nn.Parameter) -> bool:
    """Whether it is the weight of a linear layer or of a 1 x 1 convolution."""
    return weight.dim() == 2 or (weight.dim() == 4 and weight.shape[2:] == (1, 1))
