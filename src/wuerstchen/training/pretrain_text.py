"""What comes before Stage C where no published text encoder is at hand: the encoder learns alone.

A published Stage C reads an encoder that knows language. A random one and a Stage C that learns to
draw wait for each other for long (docs/log.md). Here the encoder learns with a small network to
guess the semantics that belong to a caption; that network is thrown away.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen import weights
from wuerstchen.config import Config
from wuerstchen.data import Batch, Pairs
from wuerstchen.geometry import semantics_size
from wuerstchen.models.pretrain_heads import SemanticsHead
from wuerstchen.models.text import TextEncoder
from wuerstchen.training.crops import sample_grid
from wuerstchen.training.frozen import FrozenStages
from wuerstchen.training.stage import (
    PEEK,
    Draws,
    Loss,
    Networks,
    Stage,
    held_out_batch,
)


class TextAndHead(nn.Module):
    """Both networks as one forward pass."""

    def __init__(self, text: TextEncoder, sketch: SemanticsHead) -> None:
        super().__init__()
        self.text = text
        self.sketch = sketch

    def forward(self, captions: Sequence[str]) -> Tensor:
        """Captions to the (B, S, h, w) scaled semantics that they make expect."""
        guess: Tensor = self.sketch(self.text(captions))
        return guess.float()


class TextPretrainer(Stage):
    name = "c-pretraining"
    trained = "text"

    def __init__(self, config: Config, below: FrozenStages, text: TextEncoder) -> None:
        recipe = config.stage_c.pretraining
        assert recipe is not None
        self.training = recipe
        self._below = below
        self.needs_images = below.encoded is None
        cells = semantics_size(config.data.size, config.data.size)
        shape = (config.stage_c.model.semantic_channels, *cells)
        self._both = TextAndHead(text, SemanticsHead(text.width, recipe.width, shape))

    def networks(self) -> dict[str, nn.Module]:
        return {"text": self._both}

    def losses(self, networks: Networks, batch: Batch, draws: Draws) -> Iterator[Loss]:
        guess = networks["text"](batch.captions)
        error = F.mse_loss(guess, self._below.semantics(batch, draws.device))
        yield Loss("text", error, {"error": error})

    @torch.no_grad()
    def held_out(self, network: nn.Module, test: Pairs, count: int) -> dict[str, float]:
        batch = held_out_batch(test, count)
        guess = network(batch.captions)
        scaled = self._below.compress(batch.images.to(guess.device))
        return {"held_out": float(F.mse_loss(guess, scaled))}

    @torch.no_grad()
    def grid(self, network: nn.Module, test: Pairs) -> Tensor:
        """Originals above what Stage B draws from the semantics that their captions suggest."""
        batch = held_out_batch(test, PEEK)
        guess = network(batch.captions)
        draws = Draws(1, batch.indices, guess.device)
        return sample_grid([batch.images, self._below.decode(guess, batch.captions, draws)])

    def export(self, network: nn.Module, folder: Path) -> None:
        assert isinstance(network, TextAndHead)
        weights.text_c.save(folder, network.text)
