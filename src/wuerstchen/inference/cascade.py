"""The three stages on tensors: text -> C -> semantics -> B -> latents -> A -> image.

B images, S semantic channels, L tokens, D text width, H x W pixels, h x w cells of semantics.
"""

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from wuerstchen.diffusion import NoiseSource
from wuerstchen.errors import ConfigError, SizeError
from wuerstchen.geometry import latent_size_of_semantics, semantics_size, unscale_semantics
from wuerstchen.inference.dtypes import Dtypes, component_dtypes, precise
from wuerstchen.inference.nan_check import finite
from wuerstchen.inference.offload import CpuOffload, DiskOffload, Residence, Resident
from wuerstchen.inference.sampling import (
    NO_CALLBACKS,
    SamplingPlan,
    StageSampler,
    StepCallbacks,
    compiled,
)
from wuerstchen.inference.source_data import SourceData
from wuerstchen.models.compressor import Compressor, shrink
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import LATENT_CHANNELS, StageB, StageBCondition
from wuerstchen.models.stage_c import StageC, StageCCondition
from wuerstchen.models.text import TextEncoder
from wuerstchen.weights import ComponentFiles, ComponentName
from wuerstchen.weights.checks import check_sizes
from wuerstchen.weights.layout import REQUIRED

STRIP_CELLS = 256 * 256
"""Latent cells that Stage A decodes at once if memory is short: those of 1024 x 1024 pixels."""

ROOMY_CELLS = 384 * 384
"""Latent cells above which memory counts as short: those of 1536 x 1536 pixels."""

TEXT, NEGATIVE = "text_encoder_hidden_states", "negative_prompt_embeds"
SEMANTICS = "image_embeddings"
"""Names for callbacks of the tensors that condition a stage, as in diffusers.

`NEGATIVE` is read-only; the stage reads the rows of `TEXT`, positive before negative.
"""


class Cascade:
    """The networks that generate images; each method is one step from text to image."""

    def __init__(
        self,
        stage_a: StageA,
        stage_b: StageB,
        stage_c: StageC,
        text_c: TextEncoder,
        text_b: TextEncoder,
        name: str = "",
        compressor: Compressor | None = None,
    ) -> None:
        """Raises ModelFolderError unless networks fit.

        name        of the model, for errors
        compressor  reads images; None where the model has none
        """
        check_sizes(
            name,
            stage_b.config,
            stage_c.config,
            text_b=text_b.width,
            text_c=text_c.width,
            compressor=None if compressor is None else compressor.config,
        )
        self.name = name
        self.compressor = None if compressor is None else compressor.eval()
        self.stage_a, self.stage_b, self.stage_c = stage_a.eval(), stage_b.eval(), stage_c.eval()
        self.text_c, self.text_b = text_c.eval(), text_b.eval()
        self._forward_b, self._forward_c = self.stage_b, self.stage_c
        self._residence: Residence = Resident()

    @property
    def networks(self) -> dict[ComponentName, nn.Module]:
        """Those that generate, by the names of the components of a model folder."""
        return {name: getattr(self, name) for name in REQUIRED}

    def to(self, device: str | torch.device | None = None, dtype: Dtypes | None = None) -> Self:
        """Move all networks to a device, a dtype (`component_dtypes`) or both; returns itself."""
        if not self.low_memory:
            dtypes = None if dtype is None else component_dtypes(dtype)
            for name, network in self.networks.items():
                network.to(device=device, dtype=None if dtypes is None else dtypes[name])
            if self.compressor is not None:
                self.compressor.to(device, None if dtypes is None else precise(dtypes["stage_a"]))
            return self
        if dtype is not None:
            raise ConfigError(
                "Weights that are loaded for each use get their dtype when the model is opened: "
                "pass torch_dtype= there."
            )
        if device is not None and not isinstance(self._residence, Resident):
            self._residence.device = torch.device(device)
        return self

    def enable_model_cpu_offload(self, device: str | torch.device = "cuda") -> None:
        """Keep weights in CPU memory, and each network on `device` only while it computes.

        With low_memory the weights stay on disk: only the work moves to `device`.
        """
        if not isinstance(self._residence, DiskOffload):
            if not self.low_memory:
                self.to("cpu")
            self._residence = CpuOffload(torch.device(device))
        self.to(device)

    def leave_on_disk(
        self, components: Mapping[ComponentName, tuple[ComponentFiles, torch.dtype]]
    ) -> None:
        """Fill the empty networks from these files, in these dtypes, for each use only."""
        networks: dict[ComponentName, nn.Module] = {**self.networks}
        if self.compressor is not None:
            networks["compressor"] = self.compressor
        by_network = {networks[name]: source for name, source in components.items()}
        self._residence = DiskOffload(by_network, torch.device("cpu"))

    def compile(self) -> Self:
        """Compile the steps of Stages B and C with torch; returns the object itself.

        The first image of each size and batch size compiles, minutes at the published size; other
        prompts, seeds and guidance scales do not compile again.
        """
        self._forward_b = compiled(self.stage_b, lambda: not self.low_memory)  # type: ignore[assignment]
        self._forward_c = compiled(self.stage_c, lambda: not self.low_memory)  # type: ignore[assignment]
        return self

    @property
    def device(self) -> torch.device:
        """Where networks compute."""
        return self._residence.device or next(self.stage_c.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of Stage C; other networks may have another one."""
        return next(self.stage_c.parameters()).dtype

    @torch.inference_mode()
    def encode(self, encoder: TextEncoder, captions: Sequence[str]) -> Tensor:
        """Captions to (B, L, D); repeated captions are encoded once."""
        distinct = list(dict.fromkeys(captions))
        name = f"the text encoder of Stage {'B' if encoder is self.text_b else 'C'}"
        with self._residence.loaded(encoder):
            rows = finite(name, encoder, encoder(distinct), lambda: encoder(distinct))
        return rows[[distinct.index(caption) for caption in captions]]

    def checked_compressor(self) -> Compressor:
        """The compressor; raises ConfigError for a model without one."""
        if self.compressor is None:
            raise ConfigError(
                f"The model {self.name or 'in use'} has no compressor, which reads images: pass "
                "compressor= (--compressor), a folder, a file or a hub id such as "
                "warp-ai/EfficientNetEncoder."
            )
        return self.compressor

    @torch.inference_mode()
    def semantics_from_image(self, image: Tensor) -> Tensor:
        """The compressor: (B, 3, H, W) pixels in [0, 1] to (B, S, h, w) unscaled semantics.

        Raises ConfigError for a model without one.
        """
        compressor = self.checked_compressor()
        dtype = next(compressor.parameters()).dtype
        pixels = shrink(image.to(self.device, dtype))

        def compress() -> Tensor:
            result: Tensor = compressor(pixels)
            return result

        with self._residence.loaded(compressor):
            return finite("the compressor", compressor, compress(), compress)

    @torch.inference_mode()
    def latents_from_image(self, image: Tensor) -> Tensor:
        """Stage A: (B, 3, H, W) pixels in [0, 1] to (B, 4, H/4, W/4) latents, at least in fp32."""
        pixels = image.to(self.device)

        def encode() -> Tensor:
            return self.stage_a.encode(pixels)

        with self._residence.loaded(self.stage_a):
            latents = finite("Stage A", self.stage_a, encode(), encode)
        return latents.to(precise(latents.dtype))

    @torch.inference_mode()
    def semantics_from_text(
        self,
        text: Tensor,
        randn: NoiseSource,
        size: tuple[int, int],
        plan: SamplingPlan,
        *,
        negative: Tensor | None = None,
        start: Tensor | None = None,
        source: SourceData | None = None,
        callbacks: StepCallbacks = NO_CALLBACKS,
    ) -> Tensor:
        """Stage C: (B, L, D) text to (B, S, h, w) unscaled semantics, in fp32.

        size      height and width of the image in pixels
        negative  (B, L, D) text to guide away from; not used without guidance
        start     (B, S, h, w) noise to start from, in place of the first of `randn`
        source    scaled semantics of an image to start from
        """
        shape = (len(text), self.stage_c.config.semantic_channels, *semantics_size(*size))
        _check_start("Stage C", start, shape)
        state = self._state(self.stage_c, shape)

        def prepare(tensors: Mapping[str, Tensor], *, both: bool) -> StageCCondition:
            rows = tensors[TEXT] if both else tensors[TEXT][: len(text)]
            return self.stage_c.condition(self._cast(rows, self.stage_c))

        sampler = StageSampler("Stage C", self.stage_c, self._forward_c, prepare)
        x = randn(state) if start is None else start.to(state, copy=True)
        with self._residence.loaded(self.stage_c):
            texts = _texts(text, negative, plan)
            scaled = sampler.sample(texts, plan, x, randn, callbacks, source)
        return unscale_semantics(scaled)

    @torch.inference_mode()
    def latents_from_semantics(
        self,
        semantics: Tensor,
        text: Tensor,
        randn: NoiseSource,
        plan: SamplingPlan,
        *,
        negative: Tensor | None = None,
        start: Tensor | None = None,
        source: SourceData | None = None,
        callbacks: StepCallbacks = NO_CALLBACKS,
    ) -> Tensor:
        """Stage B: (B, S, h, w) unscaled semantics and (B, L, D) text to (B, 4, H/4, W/4) latents.

        negative  (B, L, D) text to guide away from, together with semantics of zeros
        start     (B, 4, H/4, W/4) noise to start from, in place of the first of `randn`
        source    latents of an image to start from
        """
        size = latent_size_of_semantics(*semantics.shape[2:])
        shape = (len(semantics), LATENT_CHANNELS, *size)
        _check_start("Stage B", start, shape)

        def prepare(tensors: Mapping[str, Tensor], *, both: bool) -> StageBCondition:
            given = self._cast(tensors[SEMANTICS], self.stage_b)
            text = self._cast(tensors[TEXT], self.stage_b)
            if both:
                given = torch.cat([given, torch.zeros_like(given)])
            return self.stage_b.condition(given, text[: len(given)], size)

        sampler = StageSampler("Stage B", self.stage_b, self._forward_b, prepare)
        tensors = {**_texts(text, negative, plan), SEMANTICS: semantics}
        state = self._state(self.stage_b, shape)
        x = randn(state) if start is None else start.to(state, copy=True)
        with self._residence.loaded(self.stage_b):
            return sampler.sample(tensors, plan, x, randn, callbacks, source)

    @torch.inference_mode()
    def image_from_latents(self, latent: Tensor) -> Tensor:
        """Stage A: (B, 4, H/4, W/4) latents to (B, 3, H, W) pixels in [0, 1].

        Large images are decoded in strips, with low memory also smaller ones.
        """
        height, width = latent.shape[2:]
        rows = self.strip_rows(height, width)

        def decode() -> Tensor:
            if rows < height:
                return self.stage_a.decode_in_strips(latent, rows)
            return self.stage_a.decode(latent)

        with self._residence.loaded(self.stage_a):
            return finite("Stage A", self.stage_a, decode(), decode)

    def strip_rows(self, height: int, width: int) -> int:
        """Rows of a (height, width) latent that Stage A decodes at once."""
        limit = STRIP_CELLS if self.low_memory else ROOMY_CELLS
        return height if height * width <= limit else max(1, STRIP_CELLS // width)

    @property
    def compiled(self) -> bool:
        """Whether the steps of Stages B and C were compiled."""
        return self._forward_b is not self.stage_b

    @property
    def low_memory(self) -> bool:
        """Whether weights are loaded only while their network computes."""
        return not isinstance(self._residence, Resident)

    def _state(self, network: nn.Module, shape: tuple[int, ...]) -> Tensor:
        """An empty state of a sampler: never below fp32, whatever the dtype of the network."""
        dtype = precise(next(network.parameters()).dtype)
        return torch.empty(shape, device=self.device, dtype=dtype)

    def _cast(self, x: Tensor, network: nn.Module) -> Tensor:
        """x in the dtype of the network; that of a text encoder may differ."""
        return x.to(self.device, next(network.parameters()).dtype)


def text_names(plan: SamplingPlan) -> tuple[str, ...]:
    """Names of the text tensors of a stage."""
    return (TEXT, NEGATIVE) if plan.guidance.active else (TEXT,)


def _check_start(stage: str, start: Tensor | None, shape: tuple[int, ...]) -> None:
    if start is not None and start.shape != shape:
        raise SizeError(
            f"latents must be the start noise of {stage}, {shape}, found {tuple(start.shape)}."
        )


def _texts(text: Tensor, negative: Tensor | None, plan: SamplingPlan) -> dict[str, Tensor]:
    """The text tensors of a stage by name."""
    if not plan.guidance.active:
        return {TEXT: text}
    if negative is None:
        raise ConfigError("Guidance needs a negative text: pass negative=, or scale 1.")
    return {TEXT: torch.cat([text, negative]), NEGATIVE: negative}  # TEXT: (2 B, L, D)
