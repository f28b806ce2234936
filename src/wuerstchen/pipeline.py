"""Text to image: text -> Stage C -> semantics -> Stage B -> latents -> Stage A -> image.

B pictures, S semantic channels, L tokens, D text width, H x W pixels, h x w cells of semantics.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wuerstchen import arguments, model_folder, noise, weights
from wuerstchen.diffusion import Draw
from wuerstchen.errors import ConfigError, ModelFolderError, SizeError
from wuerstchen.geometry import (
    SEMANTICS_SCALE,
    SEMANTICS_SHIFT,
    latent_size_of_semantics,
    semantics_size,
)
from wuerstchen.model_folder import ModelInfo
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import LATENT_CHANNELS, StageB, StageBCondition
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import TextEncoder
from wuerstchen.steps import NOBODY, OnStep, Watch, finite, run

TEXT, UNWANTED, SEMANTICS = (
    "text_encoder_hidden_states",
    "negative_prompt_embeds",
    "image_embeddings",
)
"""Names of diffusers for the tensors that callbacks can be given."""

Images = list[Image.Image] | NDArray[np.float32] | Tensor

Callback = Callable[["Pipeline", int, float, dict[str, Tensor]], Mapping[str, Tensor] | None]
"""(pipeline, step, time, tensors by name) to the tensors that shall be others from here."""


class PipelineOutput(NamedTuple):
    """What a call makes. As a tuple it begins with the pictures, as diffusers' outputs do."""

    images: Images
    """Pictures; (B, H, W, 3) or (B, 3, H, W) numbers in [0, 1]; or (B, 4, H/4, W/4) latents."""
    seeds: list[int]
    """Of each picture: the same seed makes it again, alone or in a batch."""


class PromptWarning(UserWarning):
    """A prompt has more tokens than the text encoder reads."""


class Pipeline:
    """The three stages and their text encoders, ready to draw."""

    def __init__(
        self,
        stage_a: StageA,
        stage_b: StageB,
        stage_c: StageC,
        text_c: TextEncoder,
        text_b: TextEncoder,
        info: ModelInfo | None = None,
    ) -> None:
        """info: name, size and defaults of the model; those of the published one when None."""
        self.stage_a = stage_a.eval()
        self.stage_b = stage_b.eval()
        self.stage_c = stage_c.eval()
        self.text_c = text_c.eval()
        self.text_b = text_b.eval()
        self.info = info or ModelInfo()
        self._check_fit()

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path | None = None,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        torch_dtype: torch.dtype | None = None,
    ) -> "Pipeline":
        """Open the bundled model, a model folder, or a model of the hub (`owner/name`).

        revision, cache_dir, local_files_only  for hub ids, as in huggingface_hub
        torch_dtype  of the networks; fp32 when None

        Raises ModelFolderError for a model that is not there, incomplete or damaged.
        """
        folder = model_folder.find(
            name, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only
        )
        on_hub = name is not None and not Path(name).is_dir()
        info = model_folder.read_info(folder, str(name) if on_hub else folder.resolve().name)
        pipeline = cls(
            weights.load_stage_a(folder),
            weights.load_stage_b(folder),
            weights.load_stage_c(folder),
            weights.load_text_encoder(folder, "c"),
            weights.load_text_encoder(folder, "b"),
            info,
        )
        return pipeline if torch_dtype is None else pipeline.to(dtype=torch_dtype)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write all that the pipeline holds as a model folder, which diffusers opens too.

        The compressor takes no part in drawing: it is not here, and not written.
        Raises SaveError where the folder cannot be written.
        """
        folder = Path(folder)
        weights.save_stage_a(folder, self.stage_a)
        weights.save_stage_b(folder, self.stage_b)
        weights.save_stage_c(folder, self.stage_c)
        weights.save_text_encoder(folder, self.text_c, "c")
        weights.save_text_encoder(folder, self.text_b, "b")
        weights.finish_folder(folder)
        model_folder.write_info(folder, self.info)

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> "Pipeline":
        """Move all networks to a device, a number format or both; returns the pipeline itself."""
        for network in (self.stage_a, self.stage_b, self.stage_c, self.text_c, self.text_b):
            network.to(device=device, dtype=dtype)
        return self

    @property
    def device(self) -> torch.device:
        return next(self.stage_c.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.stage_c.parameters()).dtype

    @property
    def default_size(self) -> int:
        """Side of the pictures in pixels where no other is asked for."""
        return self.info.size

    def __call__(
        self,
        prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        prior_num_inference_steps: int | None = None,
        prior_timesteps: Sequence[float] | None = None,
        prior_guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        decoder_timesteps: Sequence[float] | None = None,
        decoder_guidance_scale: float | None = None,
        negative_prompt: str | list[str] | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: Literal["pil", "np", "pt", "latent"] = "pil",
        return_dict: bool = True,
        prior_callback_on_step_end: Callback | None = None,
        prior_callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        *,
        seed: int | None = None,
        guidance_scale: float | None = None,
        on_step: OnStep | None = None,
    ) -> PipelineOutput:
        """Draw pictures. Names and order are those of diffusers' combined pipeline.

        prompt  one or several; an empty one draws without text. May be left out where
            `prompt_embeds` is given; Stage B then reads an empty one
        height, width  pixels, multiples of 128; the model's own size when None
        prior_num_inference_steps, prior_timesteps  of Stage C: evenly spaced steps, or falling
            times from 1 (noise) to 0; the model's own when None
        num_inference_steps, decoder_timesteps  the same of Stage B
        prior_guidance_scale, decoder_guidance_scale  of Stages C and B: how much text counts
            against `negative_prompt`; up to 1 the negative prompt is not used
        prompt_embeds, negative_prompt_embeds  (prompts, L, D) for Stage C, in place of text
        num_images_per_prompt  pictures of the first prompt come first
        generator  one per picture, or one; by default they are seeded seed, seed + 1, ...
        latents  (B, S, h, w) start noise of Stage C
        output_type  pil, np, pt, or latent for what Stage B made
        return_dict  kept for diffusers' callers; the output is a tuple and an object at once
        *_callback_on_step_end  called after each step of Stage C (prior) and of Stage B with the
            tensors it asks for; those it returns changed are used from there on
        seed  of the first picture, the k-th has seed + k; None and -1 stand for a random one
        guidance_scale  another name of prior_guidance_scale
        on_step  told the stage, its steps done and its steps in all

        Raises SizeError and ConfigError for arguments that cannot work, before any work;
        WuerstchenError where a stage makes numbers that are not finite.
        """
        del return_dict
        arguments.check_output_type(output_type)
        plan = arguments.plan(
            self.info,
            height=height,
            width=width,
            prior_num_inference_steps=prior_num_inference_steps,
            prior_timesteps=prior_timesteps,
            prior_guidance_scale=prior_guidance_scale,
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
            decoder_timesteps=decoder_timesteps,
            decoder_guidance_scale=decoder_guidance_scale,
        )
        texts = arguments.texts(prompt, negative_prompt, prompt_embeds, num_images_per_prompt)
        draw = (
            noise.seeded(seed, texts.count)
            if generator is None
            else noise.from_generators(generator, texts.count)
        )
        for sentence in filter(None, map(self.cut_off, dict.fromkeys(texts.wanted))):
            warnings.warn(sentence, PromptWarning, stacklevel=2)
        seeds = draw.seeds

        semantics = self.semantics_from_text(
            self._text(texts.wanted, prompt_embeds),
            draw,
            plan.size,
            plan.prior_times,
            unwanted=self._text(texts.unwanted, negative_prompt_embeds)
            if plan.prior_guidance > 1
            else None,
            guidance=plan.prior_guidance,
            start=latents,
            watch=self._watch(
                on_step, prior_callback_on_step_end, prior_callback_on_step_end_tensor_inputs
            ),
        )
        latent = self.latents_from_semantics(
            semantics,
            self.encode(self.text_b, texts.wanted),
            draw,
            plan.decoder_times,
            unwanted=self.encode(self.text_b, texts.unwanted)
            if plan.decoder_guidance > 1
            else None,
            guidance=plan.decoder_guidance,
            watch=self._watch(on_step, callback_on_step_end, callback_on_step_end_tensor_inputs),
        )
        result = latent
        if output_type != "latent":
            result = self.image_from_latents(latent)
            if on_step is not None:
                on_step("Stage A", 1, 1)
        # Cloned outside of inference mode, so that callers may compute with it as they like.
        return PipelineOutput(_shaped(result.clone(), output_type), seeds)

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
        x = text.new_empty(shape) if start is None else start.to(text, copy=True)
        tensors, scale = _guided_text(text, unwanted, guidance)
        scaled = run(
            "Stage C",
            self.stage_c,
            lambda tensors: self.stage_c.condition(tensors[TEXT]),
            tensors,
            scale,
            draw(x) if start is None else x,
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

    def cut_off(self, prompt: str) -> str:
        """A sentence that names the part of the prompt which will not be read, or nothing."""
        rest = self.text_c.cut_off(prompt)
        if not rest:
            return ""
        return (
            f"The prompt is longer than the {self.text_c.length - 2} tokens that the text encoder "
            f"reads; this end of it is left out: {rest!r}. Make the prompt shorter."
        )

    def _text(self, texts: Sequence[str], embeds: Tensor | None) -> Tensor:
        """(B, L, D) for Stage C: of the texts, or the embeds repeated for the pictures of each."""
        if embeds is None:
            return self.encode(self.text_c, texts)
        expected = (self.text_c.length, self.text_c.width)
        if embeds.ndim != 3 or tuple(embeds.shape[1:]) != expected or len(texts) % len(embeds):
            raise ConfigError(
                "prompt_embeds and negative_prompt_embeds must be (prompts, "
                f"{expected[0]}, {expected[1]}), found {tuple(embeds.shape)}."
            )
        repeated = embeds.repeat_interleave(len(texts) // len(embeds), dim=0)
        return repeated.to(self.device, self.dtype)

    def _watch(
        self, on_step: OnStep | None, callback: Callback | None, names: Sequence[str]
    ) -> Watch:
        if callback is None:
            return Watch(on_step=on_step)
        told = callback

        def look(step: int, time: float, tensors: dict[str, Tensor]) -> Mapping[str, Tensor] | None:
            return told(self, step, time, tensors)

        return Watch(on_step=on_step, look=look, names=names)

    def _check_fit(self) -> None:
        """Raise ModelFolderError where one part makes what another cannot take."""
        b, c = self.stage_b.config, self.stage_c.config
        for what, made, taken in (
            ("channels of semantics of Stage C and B", c.semantic_channels, b.semantic_channels),
            ("text widths of its encoder and Stage C", self.text_c.width, c.text_width),
            ("text widths of its encoder and Stage B", self.text_b.width, b.text_width),
        ):
            if made != taken:
                raise ModelFolderError(
                    f"Model {self.info.name or 'without name'}: the {what} must be equal, found "
                    f"{made} and {taken}; put together only parts that were trained together."
                )


def _guided_text(
    text: Tensor, unwanted: Tensor | None, guidance: float
) -> tuple[dict[str, Tensor], float | None]:
    """The text tensors of a stage by name, and the scale, or None where guidance is left out."""
    if unwanted is None or guidance <= 1:
        return {TEXT: text}, None
    return {TEXT: torch.cat([text, unwanted]), UNWANTED: unwanted}, guidance


def _shaped(result: Tensor, output_type: str) -> Images:
    if output_type in ("pt", "latent"):
        return result
    pixels: NDArray[np.float32] = result.float().cpu().permute(0, 2, 3, 1).numpy()
    if output_type == "np":
        return pixels
    return [Image.fromarray((row * 255).round().astype(np.uint8)) for row in pixels]
