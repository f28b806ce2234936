"""Inception Score: are the classes of single images clear, and those of all images many?"""

import torch
from torch import Tensor

from wuerstchen.errors import DataError
from wuerstchen.evaluation.distances.spread import Spread

SPLITS = 10


def inception_score(scores: Tensor) -> Spread:
    """Inception Score (arXiv:1606.03498) of (N, classes) class scores before the softmax.

    Mean and deviation over `SPLITS` parts of the set in its order, or N parts of fewer images,
    from 1 to the number of classes. It knows no real images. Raises DataError for no image.
    """
    if not len(scores):
        raise DataError("An Inception Score needs at least one image, found none.")
    values = []
    for part in scores.double().tensor_split(min(SPLITS, len(scores))):
        log_p = part.log_softmax(dim=1)
        log_mean = log_p.exp().mean(dim=0).clamp_min(torch.finfo(torch.float64).tiny).log()
        values.append((log_p.exp() * (log_p - log_mean)).sum(dim=1).mean().exp())
    found = torch.stack(values)
    return Spread(float(found.mean()), float(found.std(correction=0)))
