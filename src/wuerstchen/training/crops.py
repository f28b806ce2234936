"""Random crops for training, and grids of sample images."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from wuerstchen.noise import RandomStreams


def random_crop(image: Tensor, side: int, streams: RandomStreams) -> Tensor:
    """(B, 3, H, W) to (B, 3, side, side), each image cut at a position of its own."""
    height, width = image.shape[-2:]
    tops = (streams.uniform() * (height - side + 1)).long().tolist()
    lefts = (streams.uniform() * (width - side + 1)).long().tolist()
    corners = zip(image, tops, lefts, strict=True)
    return torch.stack([each[:, y : y + side, x : x + side] for each, y, x in corners])


def sample_grid(rows: Sequence[Tensor], gap: int = 2) -> Tensor:
    """Rows of (N, 3, S, S) images to one (3, H, W) image in [0, 1], white in the gaps."""
    longest = max(len(row) for row in rows)
    lines = []
    for row in rows:
        padded = functional.pad(row.float().clamp(0, 1), (gap, gap, gap, gap), value=1.0)
        line = torch.cat(list(padded), dim=-1)  # (3, S, N S)
        missing = (longest - len(row)) * padded.shape[-1]
        lines.append(functional.pad(line, (0, missing), value=1.0))
    return torch.cat(lines, dim=-2)
