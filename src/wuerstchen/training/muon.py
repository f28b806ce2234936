"""The optimizer Muon (arXiv:2502.16982) for all matrices of a shape at once.

torch.optim.Muon takes one matrix after the other: thousands of small kernels in each step.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration, which moves all singular values towards 1."""

ITERATIONS = 5

MOMENTUM = "momentum"
"""Name of its state of a weight."""

STEP_RMS = 0.2
"""Root mean square of a step at rate 1, about that of AdamW."""


class Muon(torch.optim.Optimizer):
    """Nesterov momentum with orthogonalised steps; learning rates are comparable to AdamW's."""

    def __init__(
        self,
        groups: Iterable[dict[str, object]],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        """groups: of weights of two dimensions"""
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        del closure
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape.setdefault(weight.shape, []).append(weight)
            for weights in by_shape.values():
                self._step(group, weights)

    def _step(self, group: dict[str, float], weights: list[nn.Parameter]) -> None:
        """Of weights of one shape."""
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        momenta: list[Tensor] = []
        for weight, gradient in zip(weights, gradients, strict=True):
            # Per weight, not per shape, so that checkpoints have it by the weight's name.
            state = self.state[weight]
            if MOMENTUM not in state:
                state[MOMENTUM] = torch.zeros_like(gradient)
            momenta.append(state[MOMENTUM])
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        nesterov = torch._foreach_lerp(gradients, momenta, group["momentum"])
        steps = orthogonalise(torch.stack(nesterov)).to(weights[0].dtype).unbind()
        scale = -group["lr"] * STEP_RMS * max(weights[0].shape) ** 0.5
        torch._foreach_mul_(list(weights), 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(list(weights), list(steps), alpha=scale)


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


def linear_weights(network: nn.Module) -> list[nn.Parameter]:
    """Trained matrices of linear layers, which are for Muon; a row or a column is a vector."""
    layers = (module for module in network.modules() if isinstance(module, nn.Linear))
    weights = (weight for layer in layers for weight in layer.parameters() if weight.dim() == 2)
    return [weight for weight in weights if weight.requires_grad and min(weight.shape) > 1]


def optimizers_of(
    groups: Iterable[tuple[list[nn.Parameter], float]],
    linear: Iterable[nn.Parameter],
    *,
    learning_rate: float,
    muon_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
) -> list[torch.optim.Optimizer]:
    """Muon for those of the weights that are in `linear`, AdamW for the others.

    groups     parameters, and the factor of their learning rate, which is `rate` of the group
    muon_rate  another factor, for the weights of Muon
    """
    chosen = {id(weight) for weight in linear}
    plain: list[dict[str, object]] = []
    matrices: list[dict[str, object]] = []
    for parameters, rate in groups:
        by_muon = [p for p in parameters if id(p) in chosen]
        others = [p for p in parameters if id(p) not in chosen]
        if by_muon:
            matrices.append({"params": by_muon, "rate": rate * muon_rate})
        if others:
            plain.append({"params": others, "rate": rate})
    found: list[torch.optim.Optimizer] = []
    if plain:
        # Fused, it reads the weights once: on a CPU less than a third of the time.
        found.append(
            torch.optim.AdamW(plain, learning_rate, betas, weight_decay=weight_decay, fused=True)
        )
    if matrices:
        found.append(Muon(matrices, learning_rate, weight_decay=weight_decay))
    return found
