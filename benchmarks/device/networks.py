"""Trainers of the published size with random weights, made directly on the device.

They read encodings and text states from files of random values, in the format of
`wuerstchen encode`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast, final

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.random_encodings import random_encoding
from wuerstchen.config import Config, Prediction
from wuerstchen.data import Batch, Pairs
from wuerstchen.geometry import latent_size, semantics_size
from wuerstchen.inference.model_info import ModelInfo, new_info
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.text import TextEncoder, learn_tokenizer
from wuerstchen.planning.blank import PUBLISHED, ClipSizes
from wuerstchen.training.build import Files, build_stage
from wuerstchen.training.latent_cache import Encoding, EncodingKind
from wuerstchen.training.origins import Origin
from wuerstchen.training.stage import Rows, RunName, Stage
from wuerstchen.training.stage_c import StoredText

CAPTION = "a red fox in the snow"
ROWS = 64
"""Rows of an encoding; batches repeat them."""


def random_stage(name: RunName, config: Config, folder: Path, device: torch.device) -> Stage:
    """The trainer of a stage.

    folder  empty, for the encodings
    """
    files = RandomFiles(config, folder)
    with device:
        return build_stage(name, files)


@final
class RandomFiles(Files):
    """Networks that are all new, and encodings of random values."""

    def __init__(self, config: Config, folder: Path) -> None:
        super().__init__(config, cast(Pairs, None))  # which only reading files needs
        self._folder = folder

    def is_new(self, origin: Origin) -> bool:
        del origin
        return True

    def compressor(self, origin: Origin) -> Compressor:
        del origin
        return Compressor(self.config.compressor)

    def text(self, origin: Origin) -> TextEncoder:
        stage = "stage_b" if origin.component == "text_b" else "stage_c"
        width: int = getattr(self.config, stage).model.text_width
        sizes = PUBLISHED.get(width, ClipSizes(width, 1, 2, 4 * width))
        tokenizer = learn_tokenizer([CAPTION], 600, sizes.max_position_embeddings)
        ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        return TextEncoder(CLIPTextModel(CLIPTextConfig(**sizes._asdict(), **ids)), tokenizer)

    def stored(self, kind: EncodingKind, network: torch.nn.Module) -> Rows:
        del network
        side = self.config.data.size
        semantics = (self.config.compressor.channels, *semantics_size(side, side))
        shape = (4, *latent_size(side, side)) if kind == "latents" else semantics
        return _Repeated(self._encoding(kind, shape))

    def text_states(self, text: TextEncoder) -> StoredText:
        return _Repeated(self._encoding("text", (text.length, text.width)))

    def info(self, predicts: Prediction) -> ModelInfo:
        return new_info(predicts)

    def _encoding(self, kind: EncodingKind, shape: tuple[int, ...]) -> Encoding:
        with torch.device("cpu"):
            return random_encoding(self._folder / kind, kind, shape, ROWS)


class _Repeated:
    """The rows of an encoding, over and over."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding

    def rows(self, numbers: Sequence[int]) -> Tensor:
        return self._encoding.rows([number % ROWS for number in numbers])

    def of(self, batch: Batch, dropped: Sequence[bool]) -> Tensor:
        del dropped  # all captions have one length
        return self.rows(batch.indices)
