"""Fréchet distance between sets of images; features by our compressor, sums by torchmetrics."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from wuerstchen.models.compressor import Compressor, shrink

RESAMPLES = 20


class Precomputed(nn.Module):
    """Replaces the metric's network, because features are computed in advance."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, found: Tensor) -> Tensor:
        return found


@torch.inference_mode()
def features(compressor: Compressor, images: Iterable[Tensor]) -> Tensor:
    """(B, 3, H, W) batches in [0, 1] to (N, 2 S): mean and standard deviation of each channel."""
    rows = []
    for batch in images:
        semantics = compressor(shrink(batch.float())).flatten(2)  # (B, S, hw)
        rows.append(torch.cat([semantics.mean(dim=2), semantics.std(dim=2)], dim=1))
    return torch.cat(rows)


def frechet(generated: Tensor, real: Tensor) -> tuple[float, float]:
    """The distance of (N, F) from (M, F) features, and its standard deviation over resampling.

    Features are in units of the real images' standard deviation, so that all count equally.
    Covariances are divided by N - 1, which needs two images on each side.
    """
    generated, real = generated / real.std(dim=0), real / real.std(dim=0)
    stream = torch.Generator().manual_seed(0)
    again = [
        _distance(
            generated[torch.randint(len(generated), (len(generated),), generator=stream)], real
        )
        for _ in range(RESAMPLES)
    ]
    return _distance(generated, real), float(torch.tensor(again).std())


def _distance(generated: Tensor, real: Tensor) -> float:
    metric = FrechetInceptionDistance(feature=Precomputed(generated.shape[1]))
    metric.set_dtype(torch.float64)
    metric.update(real.double(), real=True)
    metric.update(generated.double(), real=False)
    return float(metric.compute())
