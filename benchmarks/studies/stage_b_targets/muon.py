"""Muon that takes 1 x 1 convolutions too, which torch's and the package's do not."""

from collections.abc import Iterable

import torch
from torch import nn

from wuerstchen.training.muon import STEP_RMS, orthogonalise


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
                step = orthogonalise(nesterov.flatten(1)[None]).view_as(weight)
                longer_side = max(weight.shape[0], weight[0].numel())
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(step, alpha=-group["lr"] * STEP_RMS * longer_side**0.5)


def is_matrix(weight: nn.Parameter) -> bool:
    """Whether it is the weight of a linear layer or of a 1 x 1 convolution."""
    return weight.dim() == 2 or (weight.dim() == 4 and weight.shape[2:] == (1, 1))
