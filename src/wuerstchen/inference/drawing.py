"""One call of the pipeline, checked and planned: texts to semantics to latents to images.

B images, S semantic channels, L tokens, D text width, H x W pixels, h x w cells of semantics.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wuerstchen.diffusion import NoiseSource
from wuerstchen.errors import ConfigError, WuerstchenError
from wuerstchen.inference.cascade import SEMANTICS, TEXT, UNWANTED, Cascade
from wuerstchen.inference.generation_plan import Plan, Texts
from wuerstchen.inference.sampling import OnStep, Watch, check_names

Images = list[Image.Image] | NDArray[np.float32] | Tensor

NO_MEMORY = ("allocate memory", "not enough memory", "out of memory", "size calculation overflowed")
"""How torch says it where it has no error class of its own for that, as on the CPU."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What is drawn, and by which networks.

    Stages C and B take their noise from `draw` in turn, so the semantics come first. Unwanted
    texts are encoded only where guidance leads away from them.
    """

    cascade: Cascade
    plan: Plan
    texts: Texts
    draw: NoiseSource

    def check_watches(self, stage_c: Watch, stage_b: Watch) -> None:
        """Raise ConfigError where one asks for a tensor that its stage will not have."""
        texts_c, texts_b = (
            (TEXT, UNWANTED) if walk.guidance.active else (TEXT,)
            for walk in (self.plan.prior, self.plan.decoder)
        )
        check_names("Stage C", stage_c, texts_c)
        check_names("Stage B", stage_b, (*texts_b, SEMANTICS))

    @contextmanager
    def memory(self) -> Iterator[None]:
        """Around all of the work: a lack of memory becomes a WuerstchenError of one sentence."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not _lacks_memory(error):
                raise
            height, width = self.plan.size
            raise WuerstchenError(
                f"Not enough memory for images of {width} x {height} pixels, "
                f"{self.texts.count} at once; ask for a smaller size, or for fewer of them."
            ) from error

    def semantics(
        self,
        embeds: Tensor | None,
        unwanted_embeds: Tensor | None,
        start: Tensor | None,
        watch: Watch,
    ) -> Tensor:
        """Stage C: (B, S, h, w).

        embeds, unwanted_embeds  (prompts, L, D) in place of the texts
        start                    (B, S, h, w) noise in place of the first draw

        Raises ConfigError for embeds and SizeError for a start of another shape.
        """
        plan, texts = self.plan, self.texts
        guided = plan.prior.guidance.active
        return self.cascade.semantics_from_text(
            self._text(texts.wanted, embeds),
            self.draw,
            plan.size,
            plan.prior,
            unwanted=self._text(texts.unwanted, unwanted_embeds) if guided else None,
            start=start,
            watch=watch,
        )

    def latents(self, semantics: Tensor, watch: Watch) -> Tensor:
        """Stage B: (B, 4, H/4, W/4)."""
        cascade, plan, texts = self.cascade, self.plan, self.texts
        guided = plan.decoder.guidance.active
        return cascade.latents_from_semantics(
            semantics,
            cascade.encode(cascade.text_b, texts.wanted),
            self.draw,
            plan.decoder,
            unwanted=cascade.encode(cascade.text_b, texts.unwanted) if guided else None,
            watch=watch,
        )

    def images(self, latents: Tensor, output_type: str, on_step: OnStep | None) -> Images:
        """Stage A, or the latents themselves, in the form that the output type names."""
        result = latents
        if output_type != "latent":
            result = self.cascade.image_from_latents(latents)
            if on_step is not None:
                on_step("Stage A", 1, 1)
        # Cloned outside of inference mode, so that callers may compute with it as they like.
        return _shaped(result.clone(), output_type)

    def _text(self, texts: Sequence[str], embeds: Tensor | None) -> Tensor:
        """(B, L, D) for Stage C: of the texts, or the embeds repeated for the images of each."""
        cascade, encoder = self.cascade, self.cascade.text_c
        if embeds is None:
            return cascade.encode(encoder, texts)
        expected = (encoder.length, encoder.width)
        fits = embeds.ndim == 3 and tuple(embeds.shape[1:]) == expected and len(embeds) > 0
        if not fits or len(texts) % len(embeds):
            raise ConfigError(
                "prompt_embeds and negative_prompt_embeds must be (prompts, "
                f"{expected[0]}, {expected[1]}), found {tuple(embeds.shape)}."
            )
        repeated = embeds.repeat_interleave(len(texts) // len(embeds), dim=0)
        return repeated.to(cascade.device)


def _lacks_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in str(error) for words in NO_MEMORY
    )


def _shaped(result: Tensor, output_type: str) -> Images:
    if output_type in ("pt", "latent"):
        return result
    pixels: NDArray[np.float32] = result.float().cpu().permute(0, 2, 3, 1).numpy()  # (B, H, W, 3)
    if output_type == "np":
        return pixels
    return [Image.fromarray((row * 255).round().astype(np.uint8)) for row in pixels]
