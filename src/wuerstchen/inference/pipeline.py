"""Text to image under the argument names of diffusers; model folders opened and saved.

B images, S semantic channels, L tokens, D text width, H x W pixels, h x w cells of semantics.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from wuerstchen import noise, weights
from wuerstchen.errors import ConfigError
from wuerstchen.inference import generation_plan, model_info
from wuerstchen.inference.cascade import Cascade
from wuerstchen.inference.drawing import Drawing, Images
from wuerstchen.inference.dtypes import precisions
from wuerstchen.inference.generation_plan import Plan
from wuerstchen.inference.model_info import ModelInfo, StageSettings
from wuerstchen.inference.sampling import OnStep, Watch
from wuerstchen.lora import Adapters, read_lora
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import TextEncoder

Callback = Callable[["Pipeline", int, float, dict[str, Tensor]], Mapping[str, Tensor] | None]
"""(pipeline, step, time, tensors by name) to the tensors that shall be others from here."""


class PipelineOutput(NamedTuple):
    """What a call makes. As a tuple it begins with the images, as diffusers' outputs do."""

    images: Images
    """Images; (B, H, W, 3) or (B, 3, H, W) numbers in [0, 1]; or (B, 4, H/4, W/4) latents."""
    seeds: list[int]
    """Of each image: the same seed makes it again, alone or in a batch. That of an image from a
    generator on another device makes it again with a generator there."""


class PromptWarning(UserWarning):
    """A prompt has more tokens than the text encoder reads."""


class Pipeline(Cascade):
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
        """info: name, size and defaults of the model; those of the published one when None.

        Raises ModelFolderError where one part makes what another cannot take.
        """
        self.info = info or ModelInfo()
        super().__init__(stage_a, stage_b, stage_c, text_c, text_b, self.info.name)
        self.adapters = Adapters({"stage_c": stage_c, "stage_b": stage_b, "text_c": text_c})

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path | None = None,
        *,
        prior: str | Path | None = None,
        variant: str | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        torch_dtype: torch.dtype | Mapping[weights.ComponentName, torch.dtype] | None = None,
        low_memory: bool = False,
    ) -> "Pipeline":
        """Open the bundled model, a model folder or file, or a model of the hub (`owner/name`).

        name, prior  a whole model; or a decoder and the prior that goes with it, which is found
            by itself where the decoder's README.md names it (`warp-ai/wuerstchen`)
        variant      fp16 for files such as model.fp16.safetensors
        revision, cache_dir, local_files_only  for hub ids, as in huggingface_hub
        torch_dtype  of the networks, or by part (`stage_a`, `stage_b`, `stage_c`, `text_b`,
            `text_c`); fp32 when None. What overflows in fp16 stays in fp32
        low_memory   weights are read when their stage runs and let go after it: the largest part
            decides how much memory is needed, and every image reads the files again

        Raises ModelFolderError for a model that is not there, incomplete, damaged, of another
        generation, or of parts that do not fit each other.
        """
        files = weights.resolve(
            name,
            prior=prior,
            variant=variant,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        return cls.from_files(files, torch_dtype=torch_dtype, low_memory=low_memory)

    @classmethod
    def from_files(
        cls,
        files: weights.ModelFiles,
        *,
        torch_dtype: torch.dtype | Mapping[weights.ComponentName, torch.dtype] | None = None,
        low_memory: bool = False,
    ) -> "Pipeline":
        """Open parts from anywhere, as `weights.from_files` names them: folders, single files, or
        the authors' .pt files. Arguments and errors as of `from_pretrained`."""
        kinds = precisions(torch_dtype)
        pipeline = cls(
            weights.stage_a.empty(files.stage_a),
            weights.stage_b.empty(files.stage_b),
            weights.stage_c.empty(files.stage_c),
            weights.text_c.empty(files.text_c),
            weights.text_c.empty(files.text_b),
            model_info.info_of(files),
        )
        parts = {part.component: part for part in files.components()}
        networks = pipeline.networks
        if low_memory:
            pipeline._leave_on_disk({part: (parts[part], kinds[part]) for part in networks})
        else:
            for part, network in networks.items():
                weights.fill(network, parts[part], kinds[part])
        return pipeline

    def save_pretrained(self, folder: str | Path) -> None:
        """Write all that the pipeline holds as a model folder, which diffusers opens too.

        The compressor takes no part in drawing: it is not here, and not written.
        LoRAs in use have to be fused: they are then part of what is written.
        Raises SaveError where the folder cannot be written.
        """
        folder = Path(folder)
        if self.low_memory or (self.adapters.weights and not self.adapters.fused):
            raise ConfigError(
                "A pipeline is saved with its weights in memory and LoRAs fused or unloaded: open "
                "it without low_memory, and call fuse_lora or unload_lora_weights first."
            )
        weights.stage_a.save(folder, self.stage_a)
        weights.stage_b.save(folder, self.stage_b)
        weights.stage_c.save(folder, self.stage_c)
        weights.text_c.save(folder, self.text_c)
        weights.text_b.save(folder, self.text_b)
        weights.write_index(folder)
        model_info.write_info(folder, self.info)

    @property
    def default_size(self) -> int:
        """Side of the images in pixels where no other is asked for."""
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
        prior_sampler: str | None = None,
        prior_spacing: str | None = None,
        prior_guidance_interval: tuple[float, float] | None = None,
        prior_guidance_rescale: float | None = None,
        prior_guidance_end: float | None = None,
        decoder_sampler: str | None = None,
        decoder_spacing: str | None = None,
        on_step: OnStep | None = None,
    ) -> PipelineOutput:
        """Draw images. Names and order are those of diffusers' combined pipeline.

        prompt  one or several; an empty one draws without text. May be left out where
            `prompt_embeds` is given; Stage B then reads an empty one
        height, width  pixels, multiples of 128; the model's own size when None
        prior_num_inference_steps, prior_timesteps  of Stage C: a number of steps, or falling
            times from 1 (noise) to 0; the model's own when None
        num_inference_steps, decoder_timesteps  the same of Stage B
        prior_guidance_scale, decoder_guidance_scale  of Stages C and B: how much text counts
            against `negative_prompt`; up to 1 the negative prompt is not used
        prompt_embeds, negative_prompt_embeds  (prompts, L, D) for Stage C, in place of text
        num_images_per_prompt  images of the first prompt come first
        generator  one per image, or one; by default they are seeded seed, seed + 1, ...
            From one that was used before a seed is drawn, which `seeds` reports
        latents  (B, S, h, w) start noise of Stage C
        output_type  pil, np, pt, or latent for what Stage B made
        return_dict  kept for diffusers' callers; the output is a tuple and an object at once
        *_callback_on_step_end  called after each step of Stage C (prior) and of Stage B with the
            tensors it asks for; those it returns changed are used from there on
        seed  of the first image, the k-th has seed + k; None and -1 stand for a random one
        guidance_scale  another name of prior_guidance_scale
        prior_sampler, decoder_sampler  ddpm, ddim, dpm++2m, dpm++2m-sde, heun, euler-ancestral
        prior_spacing, decoder_spacing  what is even between the steps: time, log_snr or tuned; or
            published, the list of 29
        prior_guidance_interval  the least and the greatest time that are guided; others cost half
        prior_guidance_rescale  share of the way back to the spread without guidance, 0 to 1
        prior_guidance_end  the scale at time 0, reached evenly from the one at time 1
        on_step  told the stage, its steps done and its steps in all

        Raises SizeError and ConfigError for arguments that cannot work, WuerstchenError where a
        stage makes numbers that are not finite or the memory is too small.
        """
        del return_dict
        generation_plan.check_output_type(output_type)
        generation_plan.check_finite(
            latents=latents,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
        )
        if prior_guidance_scale is not None and guidance_scale is not None:
            raise ConfigError(
                "guidance_scale is another name of prior_guidance_scale; give one of them, "
                "not both."
            )
        plan = generation_plan.plan(
            self.info,
            height=height,
            width=width,
            prior=StageSettings(
                steps=prior_num_inference_steps,
                timesteps=prior_timesteps,
                sampler=prior_sampler,
                spacing=prior_spacing,
                guidance_scale=guidance_scale
                if prior_guidance_scale is None
                else prior_guidance_scale,
                guidance_interval=prior_guidance_interval,
                guidance_rescale=prior_guidance_rescale,
                guidance_end=prior_guidance_end,
            ),
            decoder=StageSettings(
                steps=num_inference_steps,
                timesteps=decoder_timesteps,
                sampler=decoder_sampler,
                spacing=decoder_spacing,
                guidance_scale=decoder_guidance_scale,
            ),
        )
        texts = generation_plan.texts(prompt, negative_prompt, prompt_embeds, num_images_per_prompt)
        draw = (
            noise.seeded(seed, texts.count)
            if generator is None
            else noise.from_generators(generator, texts.count)
        )
        seeds = draw.seeds
        drawing = Drawing(cascade=self, plan=plan, texts=texts, draw=draw)
        watch_c = self._watch(
            on_step, prior_callback_on_step_end, prior_callback_on_step_end_tensor_inputs
        )
        watch_b = self._watch(on_step, callback_on_step_end, callback_on_step_end_tensor_inputs)
        drawing.check_watches(watch_c, watch_b)
        self._warn_of_cut_off(texts)
        with drawing.memory():
            semantics = drawing.semantics(prompt_embeds, negative_prompt_embeds, latents, watch_c)
            latent = drawing.latents(semantics, watch_b)
            return PipelineOutput(drawing.images(latent, output_type, on_step), seeds)

    def draw(
        self,
        plan: Plan,
        prompt: str,
        negative_prompt: str = "",
        *,
        count: int = 1,
        seed: int | None = None,
        on_step: OnStep | None = None,
    ) -> PipelineOutput:
        """`count` images of one prompt by a plan that was made before."""
        texts = generation_plan.texts(prompt, negative_prompt, None, count)
        streams = noise.seeded(seed, count)
        drawing = Drawing(cascade=self, plan=plan, texts=texts, draw=streams)
        watch = Watch(on_step=on_step)
        with drawing.memory():
            latent = drawing.latents(drawing.semantics(None, None, None, watch), watch)
            return PipelineOutput(drawing.images(latent, "pil", on_step), streams.seeds)

    def load_lora_weights(
        self,
        path: str | Path,
        adapter_name: str | None = None,
        *,
        weight: float = 1.0,
        allow_unmatched: bool = False,
    ) -> None:
        """Use a LoRA of any tool, beside those in use: a file, or a folder of peft.

        adapter_name     what `set_adapters` calls it; lora_1, lora_2, ... when None
        allow_unmatched  leave out what fits no layer, with a warning that lists it

        Raises ModelFolderError for a file that is no LoRA, or one for another model.
        """
        lora = read_lora(
            Path(path),
            stage_c=self.stage_c,
            stage_b=self.stage_b,
            text_c=self.text_c,
            allow_unmatched=allow_unmatched,
        )
        self.adapters.add(adapter_name or f"lora_{len(self.adapters.names) + 1}", lora, weight)

    def set_adapters(
        self, adapter_names: str | Sequence[str], adapter_weights: float | Sequence[float] = 1.0
    ) -> None:
        """Use these LoRAs and no others; one weight for all, or one each."""
        self.adapters.set(adapter_names, adapter_weights)

    def fuse_lora(self) -> None:
        """Make the LoRAs in use part of the weights: nothing is slower than without them."""
        self.adapters.fuse()

    def unfuse_lora(self) -> None:
        """Bring back the weights of before, bit for bit, and the LoRAs beside them."""
        self.adapters.unfuse()

    def unload_lora_weights(self) -> None:
        """Take all LoRAs away; the networks are what they were, bit for bit."""
        self.adapters.remove()

    def cut_off(self, prompt: str, called: str = "prompt") -> str:
        """A sentence that names the part of the prompt which will not be read, or nothing."""
        rest = self.text_c.cut_off(prompt)
        if not rest:
            return ""
        return (
            f"The {called} {_beginning(prompt)!r} is longer than the "
            f"{self.text_c.length - 2} tokens that the text encoder reads; "
            f"this end of it is left out: {rest!r}. Make it shorter."
        )

    def _warn_of_cut_off(self, texts: generation_plan.Texts) -> None:
        sentences = [self.cut_off(text) for text in dict.fromkeys(texts.wanted)]
        sentences += [self.cut_off(t, "negative prompt") for t in dict.fromkeys(texts.unwanted)]
        for sentence in filter(None, sentences):
            warnings.warn(sentence, PromptWarning, stacklevel=3)  # where the pipeline was called

    def _watch(
        self, on_step: OnStep | None, callback: Callback | None, names: Sequence[str]
    ) -> Watch:
        if callback is None:
            return Watch(on_step=on_step)
        return Watch(on_step=on_step, look=partial(callback, self), names=names)


def _beginning(text: str, letters: int = 30) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1]}…"
