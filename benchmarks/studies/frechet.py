"""Fréchet distance between sets of images; features by our compressor, sums by torchmetrics."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from wuerstchen.models.compressor import Compressor, shrink

RESAMPLES = 20


class Given(nn.Module):
    """Stands where the metric expects a network: features are computed before, and once."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, found: Tensor) -> Tensor:
        return found


@torch.inference_mode()
def features(compressor: Compressor, images: Iterable[Tensor]) -> Tensor:
    """(B, 3, H, W) batches in [0, 1] to (N, 2 S): mean and spread over the map of each channel."""
    rows = []
    for batch in images:
        semantics = compressor(shrink(batch.float())).flatten(2)  # (B, S, hw)
        rows.append(torch.cat([semantics.mean(dim=2), semantics.std(dim=2)], dim=1))
    return torch.cat(rows)


def frechet(drawn: Tensor, real: Tensor) -> tuple[float, float]:
    """(N, F) and (M, F) features to their distance, and its spread over resampled images.

    Every feature is measured in standard deviations of the real images, so that all count.
    """
    drawn, real = drawn / real.std(dim=0), real / real.std(dim=0)
    stream = torch.Generator().manual_seed(0)
    again = [
        _distance(drawn[torch.randint(len(drawn), (len(drawn),), generator=stream)], real)
        for _ in range(RESAMPLES)
    ]
    return _distance(drawn, real), float(torch.tensor(again).std())


def _distance(drawn: Tensor, real: Tensor) -> float:
    metric = FrechetInceptionDistance(feature=Given(drawn.shape[1]))
    metric.set_dtype(torch.float64)
    metric.update(real.double(), real=True)
    metric.update(drawn.double(), real=False)
    return float(metric.compute())
