"""Dropout whose masks depend on the image, not on its batch."""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen.noise import mixed

MAX_LAYERS = 2**20
"""More layers than a network has: repetitions of an image get masks of their own."""


class Dropout(nn.Module):
    """nn.Dropout whose mask for a row depends on the key of its image and the layer alone.

    So batches, micro-batches, processes and gradient checkpointing do not change it. Without keys
    it is torch's own.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.number = 0
        self.keys: Sequence[int] = ()

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) x; if B is a multiple of the number of keys, the images repeat."""
        if not self.training or self.probability == 0:
            return x
        if not self.keys:
            return F.dropout(x, self.probability)
        mask = torch.empty(x.shape, dtype=torch.bool, device=x.device)
        for row, row_mask in enumerate(mask):
            repetition, image = divmod(row, len(self.keys))
            seed = mixed(self.keys[image], self.number + 1 + repetition * MAX_LAYERS)
            stream = torch.Generator(x.device).manual_seed(seed)
            row_mask.bernoulli_(1 - self.probability, generator=stream)
        return (x * mask).div_(1 - self.probability)


def number_dropouts(networks: Iterable[nn.Module]) -> list[Dropout]:
    """All dropouts in these networks, each numbered."""
    found = [m for network in networks for m in network.modules() if isinstance(m, Dropout)]
    for number, dropout in enumerate(found):
        dropout.number = number
    return found
