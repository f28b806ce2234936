"""The image that a generation starts from, how strongly it is changed, and where.

B images, H x W pixels, S semantic channels, h x w cells of semantics.
"""

from dataclasses import dataclass
from math import isfinite

import torch
import torch.nn.functional as F
from torch import Tensor

from wuerstchen.errors import ConfigError
from wuerstchen.geometry import latent_size, scale_semantics, semantics_size
from wuerstchen.inference.cascade import Cascade
from wuerstchen.inference.source_data import SourceData


@dataclass(frozen=True, kw_only=True)
class Source:
    """(B, 3, H, W) pixels in [0, 1], and times from which noise takes their place."""

    image: Tensor
    strength: float
    """Of Stage C, which decides the content: 0 keeps the semantics, 1 ignores them."""
    decoder_strength: float
    """Of Stage B, which decides the texture: 0 keeps the latent, 1 ignores it."""
    mask: Tensor | None = None
    """(B, 1, H, W) fractions of both strengths; 0 keeps a pixel."""

    def semantics(self, cascade: Cascade) -> Tensor:
        """(B, S, h, w) unscaled semantics of the image."""
        return cascade.semantics_from_image(self.image)

    def latents(self, cascade: Cascade) -> Tensor:
        """(B, 4, H/4, W/4) latents of the image."""
        return cascade.latents_from_image(self.image)

    def prior_data(self, cascade: Cascade) -> SourceData | None:
        """What Stage C starts from; None: noise alone."""
        if self.strength == 1 and self.mask is None:
            return None
        data = scale_semantics(self.semantics(cascade))
        mask = self._cells(semantics_size(*self.image.shape[2:]), data.device)
        return SourceData(data=data, strength=self.strength, mask=mask)

    def decoder_data(self, cascade: Cascade) -> SourceData | None:
        """What Stage B starts from; None: noise alone."""
        if self.decoder_strength == 1 and self.mask is None:
            return None
        data = self.latents(cascade)
        mask = self._cells(latent_size(*self.image.shape[2:]), data.device)
        return SourceData(data=data, strength=self.decoder_strength, mask=mask)

    def _cells(self, size: tuple[int, int], device: torch.device) -> Tensor | None:
        """The mask's largest value among the pixels that a cell touches."""
        if self.mask is None:
            return None
        return F.adaptive_max_pool2d(self.mask, size).to(device)


def checked_strengths(
    strength: float | None, decoder_strength: float | None, *, default: tuple[float, float]
) -> tuple[float, float]:
    """Both strengths; without one of them the default, where the other allows it.

    Raises ConfigError for numbers outside of [0, 1], and for a Stage C that nothing would read.
    """
    for name, value in (("strength", strength), ("decoder_strength", decoder_strength)):
        if value is not None and not (isfinite(value) and 0 <= value <= 1):
            raise ConfigError(
                f"{name} must be between 0 (the image itself) and 1 (a new one), found {value}."
            )
    if decoder_strength is None:
        decoder_strength = default[1]
    if decoder_strength == 0:
        if strength:
            raise ConfigError(
                f"decoder_strength 0 keeps the latent of the image, and then strength {strength} "
                "changes nothing; raise decoder_strength, or leave strength out."
            )
        return 0.0, 0.0
    return default[0] if strength is None else float(strength), float(decoder_strength)
