"""The optimizer Muon (arXiv:2502.16982) for all matrices of a shape at once.

torch.optim.Muon takes one matrix after the other: thousands of small kernels in each step.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration, which moves all singular values towards 1."""

ITERATIONS = 5

STEP_RMS = 0.2
"""Root mean square of a step at rate 1, about that of AdamW."""


class BatchedMuon(torch.optim.Optimizer):
    """Nesterov momentum with orthogonalised steps; learning rates are comparable to AdamW's."""

    def __init__(
        self,
        groups: Iterable[dict[str, object]],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        del closure
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape.setdefault(weight.shape, []).append(weight)
            for shape, weights in by_shape.items():
                self._step(group, shape, weights)

    def _step(
        self, group: dict[str, float], shape: torch.Size, weights: list[nn.Parameter]
    ) -> None:
        gradients = torch.stack([weight.grad for weight in weights if weight.grad is not None])
        state = self.state[weights[0]]  # of all weights of this shape together
        momentum = state.setdefault("momentum", torch.zeros_like(gradients))
        momentum.lerp_(gradients, 1 - group["momentum"])
        steps = orthogonalise(torch.lerp(gradients, momentum, group["momentum"]))
        scale = -group["lr"] * STEP_RMS * max(shape) ** 0.5
        torch._foreach_mul_(list(weights), 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(list(weights), list(steps.to(weights[0].dtype).unbind()), alpha=scale)


def orthogonalise(matrices: Tensor) -> Tensor:
    """(K, N, M) matrices with the same singular vectors and all singular values near 1."""
    a, b, c = COEFFICIENTS
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    if x.is_cuda:
        x = x.bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    found: Tensor = x if wide else x.mT
    return found
