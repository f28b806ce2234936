"""Networks without content: shapes on the meta device, of sizes that configs and headers give.

What a training reads is replaced too: encodings on disk, tokens, and the semantics of a class.
B images, L tokens, D text width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast, final

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from wuerstchen import diffusion
from wuerstchen.config import Config, Prediction, TextConfig
from wuerstchen.data import Batch, Pairs
from wuerstchen.errors import ConfigError
from wuerstchen.geometry import latent_size, semantics_size
from wuerstchen.inference.model_info import ModelInfo, new_info
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import TextEncoder
from wuerstchen.parsing import parse_object, read_bytes
from wuerstchen.planning.kernels import Setting
from wuerstchen.planning.trace import Kind, Trace
from wuerstchen.training.build import Files
from wuerstchen.training.latent_cache import EncodingKind
from wuerstchen.training.origins import Origin, resolve
from wuerstchen.training.perceptual import vgg16_features
from wuerstchen.training.prior_preservation import ClassSemantics
from wuerstchen.training.stage import Rows
from wuerstchen.training.stage_c import StoredText
from wuerstchen.weights.components import COMPONENTS
from wuerstchen.weights.hub import is_here
from wuerstchen.weights.resolve import resolve_component

META = torch.device("meta")


class ClipSizes(NamedTuple):
    """Sizes of a text model, named as in its config.json."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    vocab_size: int = 49408
    max_position_embeddings: int = 77


PUBLISHED = {
    768: ClipSizes(768, 12, 12, 3072),
    1024: ClipSizes(1024, 24, 16, 4096),
    1280: ClipSizes(1280, 32, 20, 5120),
}
"""Text models of CLIP-L, CLIP-H and CLIP-bigG by width (their config.json)."""

MAX_LAYERS = 1000
"""Of a text encoder whose weights are not on this machine, so that its config is all there is."""


@final
class BlankNetworks(Files):
    """Builds trainers within `with META`. Raises ConfigError for unknown sizes."""

    def __init__(self, config: Config) -> None:
        """config: with the sizes of its bases, as `with_base_sizes` makes it"""
        self._stored = bool(config.data.latent_cache)
        data = config.data.model_copy(update={"cache_gib": 0.0})  # every image is encoded
        nothing = np.zeros(0, dtype=np.int64)
        pairs = Pairs("train", [], nothing, nothing, data)
        super().__init__(config.model_copy(update={"data": data}), pairs)
        self.class_flops: dict[Kind, int] = {}
        """Operations before the first step, which generate the class of a subject."""

    def is_new(self, origin: Origin) -> bool:
        del origin
        return True

    def compressor(self, origin: Origin) -> Compressor:
        del origin
        return Compressor(self.config.compressor)

    def text(self, origin: Origin) -> TextEncoder:
        stage = "stage_b" if origin.component == "text_b" else "stage_c"
        width: int = getattr(self.config, stage).model.text_width
        return blank_text(text_sizes(origin, self.config.text, width, f"{stage}.model.text_width"))

    def vgg16(self, path: str) -> nn.Sequential:
        del path
        return vgg16_features()

    def stored(self, kind: EncodingKind, network: nn.Module) -> Rows | None:
        del network
        side, channels = self.config.data.size, self.config.compressor.channels
        shape = (4, *latent_size(side, side)) if kind == "latents" else (channels, *self._cells())
        return _BlankRows(shape) if self._stored else None

    def text_states(self, text: TextEncoder) -> StoredText | None:
        return _BlankRows((text.length, text.width)) if self._stored else None

    def class_semantics(self, stage_c: StageC, text: TextEncoder) -> ClassSemantics | None:
        """The operations of one image, guided, times the number of images.

        The encoding of the prompt, which happens once, is left out.
        """
        preserved = self.config.stage_c.training.prior_preservation
        if preserved is None:
            return None
        steps = len(diffusion.published_times()) - 1
        cells = (stage_c.config.semantic_channels, *self._cells())
        stage_c.eval()
        with torch.no_grad(), Setting("accelerator", bf16=False).kernels():
            with Trace([]) as trace:  # of two rows: with the prompt, and with the empty one
                condition = stage_c.condition(empty(2, text.length, text.width))
            self._count_class(trace, preserved.class_images)
            with Trace([]) as trace:
                stage_c(empty(2, *cells), empty(2), condition)
            self._count_class(trace, preserved.class_images * steps)
        return ClassSemantics(preserved, empty(preserved.class_images, *cells))

    def info(self, predicts: Prediction) -> ModelInfo:
        return new_info(predicts)

    def _cells(self) -> tuple[int, int]:
        return semantics_size(self.config.data.size, self.config.data.size)

    def _count_class(self, trace: Trace, times: int) -> None:
        for kind, count in trace.flops["frozen"].items():
            self.class_flops[kind] = self.class_flops.get(kind, 0) + times * count


def empty(*shape: int) -> Tensor:
    """An fp32 tensor without content."""
    return torch.empty(shape, device=META)


def with_base_sizes(config: Config) -> Config:
    """`config` with the sizes of its bases, as far as these are on this machine.

    Reads their config.json alone. Raises ModelFolderError where a base lacks a component.
    """
    parts = resolve(config)
    changes: dict[str, object] = {}
    for origin in (parts.stage_a, parts.stage_b, parts.compressor, parts.stage_c):
        if origin.kind == "base" and is_here(origin.folder):
            name = origin.component
            sizes = COMPONENTS[name].config(resolve_component(origin.path, name))
            if name == "compressor":
                changes[name] = sizes
            else:
                changes[name] = getattr(config, name).model_copy(update={"model": sizes})
    return config.model_copy(update=changes)


def missing_bases(config: Config) -> list[str]:
    """For each base that is not on this machine, a sentence on the sizes assumed for it."""
    parts = resolve(config)
    bases = [o.folder for o in (parts.stage_a, parts.stage_b, parts.stage_c) if o.kind == "base"]
    return [
        f"Sizes: {base} is not on this machine; the sizes in the config are assumed, which are "
        "the published ones unless it sets others."
        for base in dict.fromkeys(bases)
        if not is_here(base)
    ]


def text_sizes(origin: Origin, text: TextConfig, width: int, key: str) -> ClipSizes:
    """Sizes of a text encoder: from the config if it is new, otherwise from its folder or width.

    width, key  D of the stage that reads it, and its config key

    Raises ConfigError for a config.json that lacks them, or a width that nothing is known of.
    """
    if origin.kind == "base" and is_here(origin.folder):
        files = resolve_component(origin.path, origin.component)
        assert files.config is not None
        return _read_sizes(files.config)
    if origin.kind not in ("base", "published"):  # as if its vocabulary were filled
        sizes = (text.width, text.depth, text.heads, 4 * text.width)
        return ClipSizes(*sizes, text.vocab_size, text.max_length)
    path = Path(origin.folder) / "config.json"
    if path.is_file():
        return _read_sizes(path)
    if width in PUBLISHED:
        return PUBLISHED[width]
    raise ConfigError(
        f"{origin.folder} does not exist, and {key} is {width}, which no published text encoder "
        f"has ({', '.join(map(str, PUBLISHED))}); correct one of the two."
    )


def blank_text(sizes: ClipSizes) -> TextEncoder:
    """A text encoder of these sizes."""
    # Which tokens start and end changes no size, but the default ids exceed small vocabularies.
    config = CLIPTextConfig(**sizes._asdict(), bos_token_id=0, eos_token_id=1)
    with META:
        model = CLIPTextModel(config)
    tokenizer = _BlankTokenizer(sizes.max_position_embeddings)
    return TextEncoder(model, cast(CLIPTokenizer, tokenizer))


def _read_sizes(path: Path) -> ClipSizes:
    try:
        values = parse_object(read_bytes(path))
        text = values.get("text_config", values)
        sizes = ClipSizes._field_defaults | (text if isinstance(text, dict) else {})
        found = ClipSizes(*(int(sizes[size]) for size in ClipSizes._fields))
        if not 0 < found.num_hidden_layers <= MAX_LAYERS:
            raise ValueError(f"num_hidden_layers is {found.num_hidden_layers}")
        return found
    except (OSError, OverflowError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: expected the config of a CLIP text model, found none that can be read "
            f"({type(error).__name__}: {error})."
        ) from None


@final
class _BlankRows:
    """Encodings or text states on disk."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape

    def rows(self, numbers: Sequence[int]) -> Tensor:
        return empty(len(numbers), *self._shape)

    def of(self, batch: Batch, dropped: Sequence[bool]) -> Tensor:
        del batch
        return self.rows(dropped)


class _Tokens(NamedTuple):
    input_ids: Tensor
    attention_mask: None = None
    """Every token counts: the real mask depends on captions."""

    def to(self, device: torch.device) -> "_Tokens":
        del device  # already on the meta device
        return self


class _BlankTokenizer:
    """Any caption as L tokens without content."""

    def __init__(self, length: int) -> None:
        self.model_max_length = length

    def __call__(self, captions: Sequence[str], **options: object) -> _Tokens:
        del options
        shape = (len(captions), self.model_max_length)
        return _Tokens(torch.empty(shape, dtype=torch.int64, device=META))
