"""Which training sticker a drawn one is most like. N, M images, F features."""

import torch
from torch import Tensor


def nearest(queries: Tensor, references: Tensor) -> tuple[list[int], list[float]]:
    """For each of (N, F) queries, its nearest of (M, F) references, and their cosine similarity.

    Features are standardised by the references.
    """
    mean, std = references.mean(dim=0), references.std(dim=0).clamp_min(1e-4)
    one, other = (
        torch.nn.functional.normalize((x - mean) / std, dim=1) for x in (queries, references)
    )
    found = (one @ other.T).max(dim=1)
    return found.indices.tolist(), found.values.tolist()
