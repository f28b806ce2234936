"""Text to image under the argument names of diffusers; model folders opened and saved.

B images, S semantic channels, L tokens, D text width, H x W pixels, h x w cells of semantics.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from wuerstchen import noise, weights
from wuerstchen.errors import ConfigError, ModelFolderError, os_errors_as
from wuerstchen.inference import model_info
from wuerstchen.inference.cascade import SEMANTICS, Cascade, text_names
from wuerstchen.inference.dtypes import Dtypes, component_dtypes, precise
from wuerstchen.inference.edit import Edit, check_no_image
from wuerstchen.inference.generation import Generation
from wuerstchen.inference.generation_plan import (
    GenerationPlan,
    check_output_type,
    plan_generation,
)
from wuerstchen.inference.given import (
    NOTHING,
    Given,
    ImageEmbeddings,
    check_alone,
    joined_embeddings,
    size_of_embeddings,
)
from wuerstchen.inference.images import ImageInput, Images, converted
from wuerstchen.inference.memory_check import check_memory, memory_errors
from wuerstchen.inference.model_info import ModelInfo
from wuerstchen.inference.prompts import PromptWarning as PromptWarning
from wuerstchen.inference.prompts import encoded, prompts_of, truncation, warn_of_truncation
from wuerstchen.inference.sampling import OnStep, StepCallbacks
from wuerstchen.inference.settings import StageSettings
from wuerstchen.lora import Adapters, read_lora
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import TextEncoder
from wuerstchen.psnr import psnr
from wuerstchen.weights import ComponentName

Callback = Callable[["Pipeline", int, float, dict[str, Tensor]], Mapping[str, Tensor] | None]
"""(pipeline, step, time, tensors by name) to the tensors to replace from here on."""


class PipelineOutput(NamedTuple):
    """Result of a call. As a tuple it starts with the images, as in diffusers."""

    images: Images
    """Images; (B, H, W, 3) or (B, 3, H, W) numbers in [0, 1]; or (B, 4, H/4, W/4) latents."""
    seeds: list[int | None]
    """Each generates its image again, alone or in a batch, on the device of its generator.

    None for images of a generator that was used before, or that serves several of them."""


class Reconstruction(NamedTuple):
    """Images that stages made of images, and how close they are."""

    images: Images
    originals: Images
    """At the size at which the stages work."""
    psnr: list[float]
    """Peak signal-to-noise ratio of each, in dB."""


class Pipeline:
    """A model that generates images from text: its networks (`cascade`), info and LoRAs."""

    def __init__(
        self,
        stage_a: StageA,
        stage_b: StageB,
        stage_c: StageC,
        text_c: TextEncoder,
        text_b: TextEncoder,
        info: ModelInfo | None = None,
        compressor: Compressor | None = None,
    ) -> None:
        """Raises ModelFolderError unless networks fit.

        info        the published model's when None
        compressor  reads images; not needed to generate from text
        """
        self.info = info or ModelInfo()
        self.cascade = Cascade(
            stage_a, stage_b, stage_c, text_c, text_b, self.info.name, compressor
        )
        self.adapters = Adapters({"stage_c": stage_c, "stage_b": stage_b, "text_c": text_c})

    @classmethod
    @os_errors_as(ModelFolderError)
    def from_pretrained(
        cls,
        name: str | Path | None = None,
        *,
        prior: str | Path | None = None,
        variant: str | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        torch_dtype: Dtypes | None = None,
        low_memory: bool = False,
        configs: Sequence[str | Path] = (),
        compressor: str | Path | None = None,
    ) -> Self:
        """Open the bundled model, a model folder or file, or a model of the hub (`owner/name`).

        name, prior  a whole model; or a decoder and its prior, which is found automatically if
            the decoder's README.md names it (`warp-ai/wuerstchen`)
        variant      fp16 for files such as model.fp16.safetensors
        configs      config.json files of networks in single files, as of `weights.resolve`
        compressor   reads images: a folder, file or hub id, in place of the model's own; published
            models have it elsewhere (`warp-ai/EfficientNetEncoder`)
        revision, cache_dir, local_files_only  for hub ids, as in huggingface_hub
        torch_dtype  of all networks, or by component (`stage_a`, `stage_b`, `stage_c`, `text_b`,
            `text_c`); fp32 when None. What overflows in fp16 stays in fp32
        low_memory   weights are loaded when their stage runs and released after it: the largest
            component decides how much memory is needed, and every image reads the files again

        Raises ModelFolderError for a model that is missing, incomplete, damaged, of another
        generation, or of components that do not fit each other.
        """
        files = weights.resolve(
            name,
            prior=prior,
            variant=variant,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            configs=configs,
            compressor=compressor,
        )
        return cls.from_files(files, torch_dtype=torch_dtype, low_memory=low_memory)

    @classmethod
    def from_files(
        cls,
        files: weights.ModelFiles,
        *,
        torch_dtype: Dtypes | None = None,
        low_memory: bool = False,
    ) -> Self:
        """Open components found by `weights.from_files`, otherwise as `from_pretrained`."""
        dtypes = component_dtypes(torch_dtype)
        compressor = None
        if files.compressor is not None:
            compressor = weights.compressor.empty(files.compressor)
        pipeline = cls(
            weights.stage_a.empty(files.stage_a),
            weights.stage_b.empty(files.stage_b),
            weights.stage_c.empty(files.stage_c),
            weights.text_c.empty(files.text_c),
            weights.text_b.empty(files.text_b),
            model_info.info_of(files),
            compressor,
        )
        dtypes |= {"compressor": precise(dtypes["stage_a"])}
        if low_memory:
            sources = {found.component: found for found in files.components()}
            pipeline.cascade.leave_on_disk({c: (f, dtypes[c]) for c, f in sources.items()})
            return pipeline
        networks: dict[ComponentName, nn.Module | None] = {**pipeline.cascade.networks}
        networks["compressor"] = compressor
        for found in files.components():
            if (network := networks[found.component]) is not None:
                weights.fill(network, found, dtypes[found.component])
        return pipeline

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model, without its compressor, as a folder that diffusers opens too.

        Raises ConfigError unless LoRAs in use are fused, and SaveError if it cannot be written.
        """
        folder = Path(folder)
        if self.low_memory or (self.adapters.weights and not self.adapters.fused):
            raise ConfigError(
                "A pipeline is saved with its weights in memory and LoRAs fused or unloaded: open "
                "it without low_memory, and call fuse_lora or unload_lora_weights first."
            )
        weights.stage_a.save(folder, self.cascade.stage_a)
        weights.stage_b.save(folder, self.cascade.stage_b)
        weights.stage_c.save(folder, self.cascade.stage_c)
        weights.text_c.save(folder, self.cascade.text_c)
        weights.text_b.save(folder, self.cascade.text_b)
        weights.write_index(folder)
        model_info.write_info(folder, self.info)

    @property
    def default_size(self) -> int:
        """Default side of the images in pixels."""
        return self.info.size

    @property
    def low_memory(self) -> bool:
        """Whether weights are loaded only while their network computes."""
        return self.cascade.low_memory

    @property
    def device(self) -> torch.device:
        """Where networks compute."""
        return self.cascade.device

    @property
    def dtype(self) -> torch.dtype:
        """Of Stage C; other networks may have another one."""
        return self.cascade.dtype

    def to(self, device: str | torch.device | None = None, dtype: Dtypes | None = None) -> Self:
        """Move all networks to a device, a dtype or both, as `Cascade.to`; returns itself."""
        self.cascade.to(device, dtype)
        return self

    def enable_model_cpu_offload(self, device: str | torch.device = "cuda") -> None:
        """Keep weights in CPU memory, and each network on `device` only while it computes."""
        self.cascade.enable_model_cpu_offload(device)

    def compile(self) -> Self:
        """Compile the steps of Stages B and C, as `Cascade.compile`; returns itself."""
        self.cascade.compile()
        return self

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
        image_embeddings: ImageEmbeddings | None = None,
        image: ImageInput | None = None,
        strength: float | None = None,
        decoder_strength: float | None = None,
        mask_image: ImageInput | None = None,
        padding_mask_crop: int | None = None,
        on_step: OnStep | None = None,
    ) -> PipelineOutput:
        """Generate images. Names and order are those of diffusers' combined pipeline.

        prompt  one or several; "" generates without text, as Stage B does if only embeds are given
        height, width  pixels, multiples of 128; by default the model's own size
        prior_num_inference_steps, prior_timesteps  of Stage C: a number of steps, or falling
            times from 1 (noise) to 0; by default the model's own
        num_inference_steps, decoder_timesteps  the same for Stage B
        prior_guidance_scale, decoder_guidance_scale  of Stages C and B: strength of the text
            against `negative_prompt`; up to 1 the negative prompt is not used
        prompt_embeds, negative_prompt_embeds  (prompts, L, D) for Stage C, in place of text
        num_images_per_prompt  images of the first prompt come first
        generator  one per image, or one for all; noise is drawn from them as in diffusers, in fp32
        latents  (B, S, h, w) noise that Stage C starts from
        output_type  pil, np, pt, or latent for the output of Stage B
        return_dict  ignored; the output is both a tuple and an object
        *_callback_on_step_end  called after each step of Stage C (prior) and of Stage B with the
            tensors it names; those it returns replace them from there on
        seed  of the first image, the k-th has seed + k; None and -1: random
        guidance_scale  another name of prior_guidance_scale
        prior_sampler, decoder_sampler  ddpm, ddim, ddim-published, dpm++2m, dpm++2m-sde, heun,
            euler-ancestral
        prior_spacing, decoder_spacing  of steps: time, log_snr, tuned; or published, a list of 29
        prior_guidance_interval  the least and the greatest time that are guided; others cost half
        prior_guidance_rescale  fraction by which contrast is pulled back to that without guidance
        prior_guidance_end  the scale at time 0, reached linearly from that at time 1
        image_embeddings  (images, S, h, w) semantics, as diffusers' decoder takes them: Stage C
            does not run, and `latents` are the (B, 4, H/4, W/4) noise that Stage B starts from
        image  starts from this image, or from one for each prompt, in place of noise; the prompt
            may then be left out. By default the size is that of the image where it is a multiple
            of 128, or else one of its shape and of the model's number of pixels
        strength, decoder_strength  times of Stages C and B, 0 (keeps the image) to 1 (ignores it),
            at which sampling starts: 0.8 and 1 by default. With 0 and 0 the result is Stage A's
            reconstruction of the image, with 1 and 1 it is that of text alone
        mask_image  white is generated anew (both strengths are 1 by default), black is kept bit for
            bit, and grey is a fraction of both strengths; results then have the size of the image
        padding_mask_crop  works on the part of the image around the mask, with this margin in
            pixels, at the model's own size
        on_step  called with the stage, its steps done and its total steps

        Raises SizeError and ConfigError for arguments that cannot work, WuerstchenError where a
        stage returns numbers that are not finite or memory runs out.
        """
        del return_dict
        check_output_type(output_type)
        semantics = None
        if image_embeddings is not None:
            check_alone(
                {
                    "prompt_embeds": prompt_embeds,
                    "negative_prompt_embeds": negative_prompt_embeds,
                    "guidance_scale": guidance_scale,
                    "prior_guidance_scale": prior_guidance_scale,
                    "prior_num_inference_steps": prior_num_inference_steps,
                    "prior_timesteps": prior_timesteps,
                    "prior_sampler": prior_sampler,
                    "prior_spacing": prior_spacing,
                    "prior_guidance_interval": prior_guidance_interval,
                    "prior_guidance_rescale": prior_guidance_rescale,
                    "prior_guidance_end": prior_guidance_end,
                    "prior_callback_on_step_end": prior_callback_on_step_end,
                }
            )
            channels = self.cascade.stage_b.config.semantic_channels
            semantics = joined_embeddings(image_embeddings, channels)
            height, width = size_of_embeddings(semantics, height, width)
        edit = None
        if image is not None:
            if semantics is not None or latents is not None:
                raise ConfigError(
                    "image is read by the compressor and Stage A, in place of image_embeddings and "
                    "latents; pass one of them."
                )
            edit = Edit.requested(
                self.info.size,
                image,
                strength=strength,
                decoder_strength=decoder_strength,
                mask_image=mask_image,
                padding_mask_crop=padding_mask_crop,
                height=height,
                width=width,
            )
            edit.check(self.cascade)
            height, width = edit.size
            prompt = "" if prompt is None and prompt_embeds is None else prompt
        else:
            check_no_image(
                strength=strength,
                decoder_strength=decoder_strength,
                mask_image=mask_image,
                padding_mask_crop=padding_mask_crop,
            )
        given = Given(
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            latents=latents,
            image_embeddings=semantics,
        )
        if prior_guidance_scale is not None:
            if guidance_scale is not None:
                raise ConfigError(
                    "guidance_scale is another name of prior_guidance_scale; give one, not both."
                )
            guidance_scale = prior_guidance_scale
        plan = plan_generation(
            self.info,
            height=height,
            width=width,
            prior=StageSettings(
                steps=prior_num_inference_steps,
                timesteps=prior_timesteps,
                sampler=prior_sampler,
                spacing=prior_spacing,
                guidance_scale=guidance_scale,
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
        prompts = prompts_of(
            prompt,
            negative_prompt,
            None if prompt_embeds is None else len(prompt_embeds),
            num_images_per_prompt,
            None if semantics is None else len(semantics),
            None if edit is None else len(edit.images),
        )
        source = None if edit is None else edit.source(prompts.count)
        prior = semantics is None and (source is None or source.strength > 0)
        check_memory(self.cascade, plan, prompts.count, prior=prior)
        if generator is None:
            streams = noise.seeded(seed, prompts.count)
            seeds: Sequence[int | None] = streams.seeds
        else:
            streams, seeds = noise.from_generators(generator, prompts.count)
        callbacks_c = self._callbacks(
            on_step, prior_callback_on_step_end, prior_callback_on_step_end_tensor_inputs
        )
        callbacks_b = self._callbacks(
            on_step, callback_on_step_end, callback_on_step_end_tensor_inputs
        )
        callbacks_c.check("Stage C", text_names(plan.prior))
        callbacks_b.check("Stage B", (*text_names(plan.decoder), SEMANTICS))
        warn_of_truncation(self.cascade.text_c, prompts, stacklevel=2)  # where it was called
        with memory_errors(plan, prompts.count):
            generation = Generation(
                plan=plan,
                texts=encoded(self.cascade, prompts, plan, given, prior=prior),
                noise=streams,
                given=given,
                source=source,
                callbacks_c=callbacks_c,
                callbacks_b=callbacks_b,
            )
            result = generation.run(self.cascade, decode=output_type != "latent")
        if edit is not None and output_type != "latent":
            result = edit.finished(result)
        return PipelineOutput(converted(result, output_type), list(seeds))

    def generate(
        self,
        plan: GenerationPlan,
        prompt: str,
        negative_prompt: str = "",
        *,
        count: int = 1,
        seed: int | None = None,
        edit: Edit | None = None,
        on_step: OnStep | None = None,
    ) -> PipelineOutput:
        """Generate `count` images of one prompt by a plan that was made before.

        edit  of the plan's size
        """
        streams = noise.seeded(seed, count)
        result = self._result(plan, prompt, negative_prompt, streams, edit, on_step)
        return PipelineOutput(converted(result, "pil"), [*streams.seeds])

    def _result(
        self,
        plan: GenerationPlan,
        prompt: str,
        negative_prompt: str,
        streams: noise.RandomStreams,
        edit: Edit | None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """(B, 3, H, W), an image for each row of the streams."""
        count, callbacks = streams.rows, StepCallbacks(on_step=on_step)
        prompts = prompts_of(prompt, negative_prompt, None, count)
        source = None if edit is None else edit.source(count)
        prior = source is None or source.strength > 0
        check_memory(self.cascade, plan, count, prior=prior)
        with memory_errors(plan, count):
            generation = Generation(
                plan=plan,
                texts=encoded(self.cascade, prompts, plan, NOTHING, prior=prior),
                noise=streams,
                source=source,
                callbacks_c=callbacks,
                callbacks_b=callbacks,
            )
            result = generation.run(self.cascade)
        return result if edit is None else edit.finished(result)

    def reconstruct(
        self,
        image: ImageInput,
        prompt: str = "",
        *,
        stage: Literal["a", "b"] = "b",
        height: int | None = None,
        width: int | None = None,
        seed: int | None = 0,
        output_type: Literal["pil", "np", "pt"] = "pil",
    ) -> Reconstruction:
        """Encode images and make them again: what a model can at best show.

        image   one or several, cropped and resized as by a call
        prompt  what Stage B reads
        stage   a: Stage A alone, through its latent; b: the compressor, Stage B and Stage A

        Raises SizeError and ConfigError for arguments that cannot work.
        """
        if stage not in ("a", "b"):
            raise ConfigError(f"stage must be a or b, found {stage!r}.")
        edit = Edit.requested(
            self.info.size,
            image,
            strength=0,
            decoder_strength=0 if stage == "a" else 1,
            height=height,
            width=width,
        )
        plan = plan_generation(self.info, height=edit.size.height, width=edit.size.width)
        count = len(edit.images)
        result = self._result(plan, prompt, "", noise.seeded(seed, count), edit)
        originals = edit.source(count).image
        return Reconstruction(
            converted(result, output_type),
            converted(originals, output_type),
            psnr(result.float().cpu(), originals).tolist(),
        )

    def load_lora_weights(
        self,
        path: str | Path,
        adapter_name: str | None = None,
        *,
        weight: float = 1.0,
        allow_unmatched: bool = False,
    ) -> None:
        """Add a LoRA of any tool to those in use: a file, or a folder of peft.

        adapter_name     its name for `set_adapters`; lora_1, lora_2, ... when None
        allow_unmatched  skip what fits no layer, with a warning that lists it

        Raises ModelFolderError for a file that is no LoRA, or one for another model.
        """
        lora = read_lora(
            Path(path),
            stage_c=self.cascade.stage_c,
            stage_b=self.cascade.stage_b,
            text_c=self.cascade.text_c,
            allow_unmatched=allow_unmatched,
        )
        self.adapters.add(adapter_name or f"lora_{len(self.adapters.names) + 1}", lora, weight)

    def set_adapters(
        self, adapter_names: str | Sequence[str], adapter_weights: float | Sequence[float] = 1.0
    ) -> None:
        """Use these LoRAs and no others; one weight for all, or one each."""
        self.adapters.set(adapter_names, adapter_weights)

    def fuse_lora(self) -> None:
        """Merge the LoRAs in use into the weights: as fast as without them."""
        self.adapters.fuse()

    def unfuse_lora(self) -> None:
        """Restore the original weights, bit for bit, with the LoRAs next to them."""
        self.adapters.unfuse()

    def unload_lora_weights(self) -> None:
        """Remove all LoRAs; the networks are the original ones, bit for bit."""
        self.adapters.remove()

    def truncation(self, prompt: str, name: str = "prompt") -> str:
        """A sentence that quotes the part of the prompt which is not read; empty if all is."""
        return truncation(self.cascade.text_c, prompt, name)

    def _callbacks(
        self, on_step: OnStep | None, callback: Callback | None, names: Sequence[str]
    ) -> StepCallbacks:
        if callback is None:
            return StepCallbacks(on_step=on_step)
        return StepCallbacks(on_step=on_step, on_step_end=partial(callback, self), names=names)
