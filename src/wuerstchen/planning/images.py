"""What is made of images before a stage learns from them."""

from torch import Tensor

from wuerstchen.config import Config
from wuerstchen.geometry import latent_size, scale_semantics, semantics_size
from wuerstchen.models.compressor import Compressor, shrink
from wuerstchen.models.stage_a import StageA
from wuerstchen.planning.networks import META
from wuerstchen.planning.outline import Work, empty


class Images:
    """What Stage A and the compressor make of images, or where it comes from in their place."""

    def __init__(self, config: Config) -> None:
        self.side, self.channels = config.data.size, config.compressor.channels
        self.encoded = bool(config.data.latent_cache)
        with META:
            self.stage_a = StageA(config.stage_a.model).eval().requires_grad_(False)

    def latents(self, work: Work, images: Tensor) -> Tensor:
        if self.encoded:
            return empty(len(images), 4, *latent_size(self.side, self.side))
        with work.frozen():
            return self.stage_a.encode(images)

    def semantics(self, work: Work, micro: int, compressor: Compressor) -> Tensor:
        """Scaled ones, by a compressor that is frozen."""
        if self.encoded:
            return empty(micro, self.channels, *semantics_size(self.side, self.side))
        with work.frozen():
            semantics: Tensor = compressor(shrink(empty(micro, 3, self.side, self.side)))
            return scale_semantics(semantics)
