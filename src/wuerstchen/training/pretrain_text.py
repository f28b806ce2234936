"""Pretraining of the text encoder, for training without a published one.

A published Stage C reads an encoder that knows language. A random encoder and an untrained Stage C
block each other for long (docs/log.md). Here the encoder learns with a small network that predicts
the semantics of a caption's image; that network is discarded.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wuerstchen import weights
from wuerstchen.config import Config
from wuerstchen.data import Batch, Pairs
from wuerstchen.geometry import semantics_size
from wuerstchen.models.pretrain_heads import SemanticsHead
from wuerstchen.models.text import TextEncoder
from wuerstchen.noise import RandomStreams, streams_at
from wuerstchen.training.crops import sample_grid
from wuerstchen.training.frozen import FrozenStages
from wuerstchen.training.stage import (
    GRID_COLUMNS,
    Loss,
    Networks,
    Stage,
    TrainState,
    device_of,
    held_out_batch,
)


class TextAndHead(nn.Module):
    """Both networks as one forward pass."""

    def __init__(self, text: TextEncoder, head: SemanticsHead) -> None:
        super().__init__()
        self.text = text
        self.head = head

    def forward(self, captions: Sequence[str]) -> Tensor:
        """Captions to the (B, S, h, w) scaled semantics that they predict."""
        predicted: Tensor = self.head(self.text(captions))
        return predicted.float()


@final
class TextPretrainer(Stage):
    name = "c-pretraining"
    trained = "text"

    def __init__(self, config: Config, frozen: FrozenStages, text: TextEncoder) -> None:
        training = config.stage_c.pretraining
        assert training is not None
        self.training = training
        self._frozen = frozen
        self.needs_images = frozen.semantics.needs_images
        cells = semantics_size(config.data.size, config.data.size)
        shape = (config.stage_c.model.semantic_channels, *cells)
        self._both = TextAndHead(text, SemanticsHead(text.width, training.width, shape))

    def networks(self) -> dict[str, nn.Module]:
        return {"text": self._both}

    def frozen_networks(self) -> dict[str, nn.Module]:
        return self._frozen.networks()

    def losses(
        self, networks: Networks, batch: Batch, streams: RandomStreams, state: TrainState
    ) -> Iterator[Loss]:
        del streams, state
        predicted = networks["text"](batch.captions)
        error = F.mse_loss(predicted, self._frozen.semantics(batch, device_of(self._both)))
        yield Loss("text", error, {"error": error})

    @torch.no_grad()
    def validate(self, network: nn.Module, test: Pairs, count: int) -> dict[str, float]:
        batch = held_out_batch(test, count)
        predicted = network(batch.captions)
        scaled = self._frozen.compress(batch.images.to(predicted.device))
        return {"held_out": float(F.mse_loss(predicted, scaled))}

    @torch.no_grad()
    def grid(self, network: nn.Module, test: Pairs) -> Tensor:
        """Originals above what Stage B makes of the semantics that their captions predict."""
        batch = held_out_batch(test, GRID_COLUMNS)
        predicted = network(batch.captions)
        decoded = self._frozen.decode(predicted, batch.captions, streams_at(1, batch.indices))
        return sample_grid([batch.images, decoded])

    def export(self, network: nn.Module, folder: Path) -> None:
        assert isinstance(network, TextAndHead)
        weights.text_c.save(folder, network.text)
