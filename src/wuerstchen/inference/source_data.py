"""The data of a source image in one stage: where sampling starts, and what a mask restores.

B images, C channels, H x W cells.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from wuerstchen.diffusion.schedule import alpha_sigma


@dataclass(frozen=True, kw_only=True)
class SourceData:
    """Data with the time at which noise takes its place (SDEdit, arXiv:2108.01073).

    With a mask each cell has its own time, by which it is restored at every step before
    (Differential Diffusion, arXiv:2306.00950; of zeros and ones: arXiv:2201.09865, without
    resampling).
    """

    data: Tensor
    """(B, C, H, W) scaled semantics, or latents."""
    strength: float
    """The time at which sampling starts, from 0 (the data itself) to 1 (noise alone)."""
    mask: Tensor | None = None
    """(B, 1, H, W) fractions of the strength: cells of 0 are those of the data in the end."""

    def start(self, noise: Tensor) -> Tensor:
        """The state at the time `strength`; where a cell has strength 1 it is the noise itself."""
        if self.strength < 1:
            return self._noisy(noise, self.strength)
        if self.mask is None:
            return noise
        return torch.where(self._free(1.0), noise, self._noisy(noise, 1.0))

    def restore(self, x: Tensor, noise: Tensor, t: float, s: float) -> None:
        """Restore, in place, the cells of the state x at time s that the step from t is not for."""
        if self.mask is not None:
            kept = self.data.to(x) if s == 0 else self._noisy(noise, s)
            x.copy_(torch.where(self._free(t), x, kept))

    def _noisy(self, noise: Tensor, t: float) -> Tensor:
        """The state of the data at time t; 0 is the data itself."""
        alpha, sigma = alpha_sigma(t)
        return alpha * self.data.to(noise) + sigma * noise

    def _free(self, t: float) -> Tensor:
        """Whether a cell takes part in a step from time t; never where the mask is 0."""
        assert self.mask is not None
        return (self.mask.double() * self.strength >= t).to(self.data.device)
