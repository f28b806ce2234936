"""Dropout that is a matter of each image, and not of the batch in which it comes."""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen.noise import mixed

LAYERS_AT_MOST = 2**20
"""More layers than a network has: it keeps the masks of an image that comes again apart."""


class Dropout(nn.Module):
    """nn.Dropout, whose mask for a row follows from the key of its image and the layer alone.

    So other batches, parts of batches and processes leave an image its masks, and so does a
    checkpoint that computes a block again. Without keys it is torch's own.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.number = 0
        self.keys: Sequence[int] = ()

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) x, B being a multiple of the number of keys: then the images come again."""
        if not self.training or self.share == 0:
            return x
        if not self.keys:
            return F.dropout(x, self.share)
        mask = torch.empty(x.shape, dtype=torch.bool, device=x.device)
        for row, of_row in enumerate(mask):
            again, image = divmod(row, len(self.keys))
            seed = mixed(self.keys[image], self.number + 1 + again * LAYERS_AT_MOST)
            stream = torch.Generator(x.device).manual_seed(seed)
            of_row.bernoulli_(1 - self.share, generator=stream)
        return (x * mask).div_(1 - self.share)


def numbered(networks: Iterable[nn.Module]) -> list[Dropout]:
    """All dropouts in these networks, each with a number of its own."""
    found = [m for network in networks for m in network.modules() if isinstance(m, Dropout)]
    for number, dropout in enumerate(found):
        dropout.number = number
    return found
