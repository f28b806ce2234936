"""The networks of a config without content: shapes on the meta device, nothing is read.

L tokens of a caption.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from wuerstchen.config import Config, TextConfig
from wuerstchen.errors import ConfigError
from wuerstchen.models.text import TextEncoder
from wuerstchen.planning.sizes import text_config
from wuerstchen.training.perceptual import compared, vgg16_features

META = torch.device("meta")

PUBLISHED_VOCABULARY, PUBLISHED_LENGTH = 49408, 77


class Clip(NamedTuple):
    """Sizes of a text model."""

    vocabulary: int
    length: int
    width: int
    depth: int
    heads: int
    inner: int


PUBLISHED = {
    768: Clip(PUBLISHED_VOCABULARY, PUBLISHED_LENGTH, 768, 12, 12, 3072),
    1024: Clip(PUBLISHED_VOCABULARY, PUBLISHED_LENGTH, 1024, 24, 16, 4096),
    1280: Clip(PUBLISHED_VOCABULARY, PUBLISHED_LENGTH, 1280, 32, 20, 5120),
}
"""Text models of CLIP-L, CLIP-H and CLIP-bigG by width (their config.json)."""


class _NoMask:
    """Every token counts: what a mask says is not known before there are captions."""

    def to(self, device: torch.device) -> None:
        del device


class _Tokens(NamedTuple):
    input_ids: Tensor
    attention_mask: _NoMask


class _BlankTokenizer:
    """Any caption as L tokens without content."""

    def __init__(self, length: int) -> None:
        self.model_max_length = length

    def __call__(self, captions: Sequence[str], **options: object) -> _Tokens:
        del options
        shape = (len(captions), self.model_max_length)
        return _Tokens(torch.empty(shape, dtype=torch.int64, device=META), _NoMask())


def text_encoder(sizes: Clip) -> TextEncoder:
    """An encoder of these sizes."""
    with META:
        model = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=sizes.vocabulary,
                hidden_size=sizes.width,
                intermediate_size=sizes.inner,
                num_hidden_layers=sizes.depth,
                num_attention_heads=sizes.heads,
                max_position_embeddings=sizes.length,
                bos_token_id=0,  # what these tokens are changes no size; the defaults lie
                eos_token_id=1,  # outside of small vocabularies
            )
        )
    return TextEncoder(model, cast(CLIPTokenizer, _BlankTokenizer(sizes.length)))


def text_of_stage_c(config: Config) -> TextEncoder:
    """The encoder that Stage C reads: a published one, frozen, that of its start, or a new one."""
    training, width = config.stage_c.training, config.stage_c.model.text_width
    key = "stage_c.model.text_width"
    if config.text.pretrained:
        sizes = published_text(config.text.pretrained, width, key)
        return text_encoder(sizes).requires_grad_(False)
    if training.init_from:
        path = text_config(training.init_from, "text_c")
        sizes = published_text(training.init_from, width, key) if path is None else _told_by(path)
        learns = training.lora is None and training.train_text_encoder
        return text_encoder(sizes).requires_grad_(learns)
    return text_encoder(small_text(config.text))


def text_of_stage_b(config: Config) -> TextEncoder | None:
    """The encoder that Stage B reads, published or of its start; None where it reads no text."""
    if not config.stage_b.training.text_conditioning:
        return None
    width, key = config.stage_b.model.text_width, "stage_b.model.text_width"
    published, start = config.text.pretrained_b or config.text.pretrained, ""
    if not published:
        start = config.stage_b.training.init_from
        if (path := text_config(start, "text_b")) is not None:
            return text_encoder(_told_by(path)).requires_grad_(False)
    return text_encoder(published_text(published or start, width, key)).requires_grad_(False)


def small_text(text: TextConfig) -> Clip:
    """The sizes of the encoder that is trained here, as if its vocabulary were filled."""
    return Clip(
        text.vocab_size, text.max_length, text.width, text.depth, text.heads, 4 * text.width
    )


def published_text(folder: str, width: int, key: str) -> Clip:
    """Sizes by the folder's config.json or, where there is no such folder, by the width.

    Raises ConfigError for a config that does not say them, or a width that nothing is known of.
    """
    path = Path(folder) / "config.json"
    if path.is_file():
        return _told_by(path)
    if width in PUBLISHED:
        return PUBLISHED[width]
    raise ConfigError(
        f"{folder} does not exist, and {key} is {width}, which no published text encoder has "
        f"({', '.join(map(str, PUBLISHED))}); correct one of the two."
    )


def _told_by(path: Path) -> Clip:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values = values.get("text_config", values)
        return Clip(
            int(values.get("vocab_size", PUBLISHED_VOCABULARY)),
            int(values.get("max_position_embeddings", PUBLISHED_LENGTH)),
            int(values["hidden_size"]),
            int(values["num_hidden_layers"]),
            int(values["num_attention_heads"]),
            int(values["intermediate_size"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: expected the config of a CLIP text model, found none that can be read "
            f"({type(error).__name__}: {error})."
        ) from None


class Vgg16Outline(nn.Module):
    """`Vgg16Loss` without its file, which would be read: the same layers and comparisons."""

    def __init__(self) -> None:
        super().__init__()
        self.features = vgg16_features()
        self.requires_grad_(False)

    def forward(self, made: Tensor, true: Tensor) -> Tensor:
        # (2B, 3, H, W); the product stands for the normalisation
        return compared(self.features, torch.cat([made, true]) * 1.0)
