"""The three stages and what each does: text -> C -> semantics -> B -> latents -> A -> image.

B pictures, S semantic channels, L tokens, D text width, H x W pixels, h x w cells of semantics.
"""

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

from wuerstchen.diffusion import Draw
from wuerstchen.errors import ModelFolderError, SizeError
from wuerstchen.geometry import (
    SEMANTICS_SCALE,
    SEMANTICS_SHIFT,
    latent_size_of_semantics,
    semantics_size,
)
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import LATENT_CHANNELS, StageB, StageBCondition
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import TextEncoder
from wuerstchen.steps import NOBODY, Watch, finite, run

TEXT, UNWANTED, SEMANTICS = (
    "text_encoder_hidden_states",
    "negative_prompt_embeds",
    "image_embeddings",
)
"""What a `Watch` calls the tensors that condition a stage: callbacks know these names of diffusers.

`UNWANTED` is only shown; what the stage reads are the rows of `TEXT`, wanted before unwanted.
"""


class Cascade:
    """The networks that draw: each stage with its text encoder, one step of the way a method."""

    def __init__(
        self,
        stage_a: StageA,
        stage_b: StageB,
        stage_c: StageC,
        text_c: TextEncoder,
        text_b: TextEncoder,
        name: str = "",
    ) -> None:
        """name: what errors call the model.

        Raises ModelFolderError where one part makes what another cannot take.
        """
        _check_fit(name, stage_b, stage_c, text_c, text_b)
        self.stage_a = stage_a.eval()
        self.stage_b = stage_b.eval()
        self.stage_c = stage_c.eval()
        self.text_c = text_c.eval()
        self.text_b = text_b.eval()

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Move all networks to a device, a number format or both; returns the object itself."""
        for network in (self.stage_a, self.stage_b, self.stage_c, self.text_c, self.text_b):
            network.to(device=device, dtype=dtype)
        return self

    @property
    def device(self) -> torch.device:
        return next(self.stage_c.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.stage_c.parameters()).dtype

    @torch.inference_mode()
    def encode(self, encoder: TextEncoder, captions: Sequence[str]) -> Tensor:
        """Captions to (B, L, D); a caption that comes several times is encoded once."""
        distinct = list(dict.fromkeys(captions))
        rows: Tensor = encoder(distinct)
        return rows[[distinct.index(caption) for caption in captions]]

    @torch.inference_mode()
    def semantics_from_text(
        self,
        text: Tensor,
        draw: Draw,
        size: tuple[int, int],
        times: Sequence[float],
        *,
        unwanted: Tensor | None = None,
        guidance: float = 1.0,
        start: Tensor | None = None,
        watch: Watch = NOBODY,
    ) -> Tensor:
        """Stage C: (B, L, D) text to (B, S, h, w) unscaled semantics.

        size      height and width of the picture in pixels
        unwanted  (B, L, D), what guidance leads away from; not used where guidance is at most 1
        start     (B, S, h, w) noise in place of the first draw
        """
        shape = (len(text), self.stage_c.config.semantic_channels, *semantics_size(*size))
        if start is not None and start.shape != shape:
            raise SizeError(
                f"latents must be the start noise of Stage C, {shape}, found {tuple(start.shape)}."
            )
        tensors, scale = _guided_text(text, unwanted, guidance)
        scaled = run(
            "Stage C",
            self.stage_c,
            lambda tensors: self.stage_c.condition(tensors[TEXT]),
            tensors,
            scale,
            draw(text.new_empty(shape)) if start is None else start.to(text, copy=True),
            times,
            draw,
            watch,
        )
        return scaled * SEMANTICS_SCALE - SEMANTICS_SHIFT

    @torch.inference_mode()
    def latents_from_semantics(
        self,
        semantics: Tensor,
        text: Tensor,
        draw: Draw,
        times: Sequence[float],
        *,
        unwanted: Tensor | None = None,
        guidance: float = 1.0,
        watch: Watch = NOBODY,
    ) -> Tensor:
        """Stage B: (B, S, h, w) unscaled semantics and (B, L, D) text to (B, 4, H/4, W/4) latents.

        unwanted  (B, L, D), what guidance leads away from, together with semantics of zeros
        """
        size = latent_size_of_semantics(*semantics.shape[2:])
        tensors, scale = _guided_text(text, unwanted, guidance)

        def condition(tensors: Mapping[str, Tensor]) -> StageBCondition:
            wanted = tensors[SEMANTICS]
            both = wanted if scale is None else torch.cat([wanted, torch.zeros_like(wanted)])
            return self.stage_b.condition(both, tensors[TEXT], size)

        return run(
            "Stage B",
            self.stage_b,
            condition,
            {**tensors, SEMANTICS: semantics},
            scale,
            draw(text.new_empty(len(semantics), LATENT_CHANNELS, *size)),
            times,
            draw,
            watch,
        )

    @torch.inference_mode()
    def image_from_latents(self, latent: Tensor) -> Tensor:
        """Stage A: (B, 4, H/4, W/4) latents to (B, 3, H, W) pixels in [0, 1]."""
        return finite("Stage A", self.stage_a.decode(latent))


def _check_fit(
    name: str, stage_b: StageB, stage_c: StageC, text_c: TextEncoder, text_b: TextEncoder
) -> None:
    b, c = stage_b.config, stage_c.config
    for what, made, taken in (
        ("channels of semantics of Stage C and B", c.semantic_channels, b.semantic_channels),
        ("text widths of its encoder and Stage C", text_c.width, c.text_width),
        ("text widths of its encoder and Stage B", text_b.width, b.text_width),
    ):
        if made != taken:
            raise ModelFolderError(
                f"Model {name or 'without name'}: the {what} must be equal, found "
                f"{made} and {taken}; put together only parts that were trained together."
            )


def _guided_text(
    text: Tensor, unwanted: Tensor | None, guidance: float
) -> tuple[dict[str, Tensor], float | None]:
    """The text tensors of a stage by name, and the scale, or None where guidance is left out."""
    if unwanted is None or guidance <= 1:
        return {TEXT: text}, None
    return {TEXT: torch.cat([text, unwanted]), UNWANTED: unwanted}, guidance  # TEXT: (2 B, L, D)
