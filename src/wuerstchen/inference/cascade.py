"""The three stages and what each does: text -> C -> semantics -> B -> latents -> A -> image.

B images, S semantic channels, L tokens, D text width, H x W pixels, h x w cells of semantics.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Self

import torch
from torch import Tensor, nn

from wuerstchen.diffusion import NoiseSource
from wuerstchen.errors import ConfigError, ModelFolderError, SizeError
from wuerstchen.geometry import latent_size_of_semantics, semantics_size, unscale_semantics
from wuerstchen.inference.dtypes import precisions
from wuerstchen.inference.nan_check import finite
from wuerstchen.inference.offload import Always, Mapped, Offloaded
from wuerstchen.inference.sampling import NOBODY, Runner, Walk, Watch, compiled
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import LATENT_CHANNELS, StageB, StageBCondition
from wuerstchen.models.stage_c import StageC, StageCCondition
from wuerstchen.models.text import TextEncoder
from wuerstchen.weights import ComponentFiles, ComponentName

STRIP_CELLS = 256 * 256
"""Latent cells that Stage A decodes at once where memory is short: those of 1024 x 1024 pixels."""

ROOMY_CELLS = 384 * 384
"""Latent cells above which memory counts as short: those of 1536 x 1536 pixels."""

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
        self._forward_b, self._forward_c = self.stage_b, self.stage_c
        self._residence: Always | Mapped | Offloaded = Always()
        self._device: torch.device | None = None  # None: where the weights are

    @property
    def networks(self) -> dict[ComponentName, nn.Module]:
        """What draws, by the names of the parts of a model folder."""
        return {
            "stage_a": self.stage_a,
            "stage_b": self.stage_b,
            "stage_c": self.stage_c,
            "text_b": self.text_b,
            "text_c": self.text_c,
        }

    def to(
        self,
        device: str | torch.device | None = None,
        dtype: torch.dtype | Mapping[ComponentName, torch.dtype] | None = None,
    ) -> Self:
        """Move all networks to a device, a number format or both; returns the object itself.

        dtype  of all, with the exceptions of `precision.precisions`, or by the names of `networks`
        """
        if self.low_memory:
            return self._move(device, dtype)
        kinds = None if dtype is None else precisions(dtype)
        for part, network in self.networks.items():
            network.to(device=device, dtype=None if kinds is None else kinds[part])
        return self

    def _move(self, device: str | torch.device | None, dtype: object) -> Self:
        """`to` where weights are not in memory: only the place of the work can change."""
        if dtype is not None:
            raise ConfigError(
                "Weights that are read for each use get their type when the model is opened: pass "
                "torch_dtype= there."
            )
        if device is not None:
            assert not isinstance(self._residence, Always)
            self._device = self._residence.device = torch.device(device)
        return self

    def enable_model_cpu_offload(self, device: str | torch.device = "cuda") -> None:
        """Keep weights in the CPU's memory, and each on `device` only while it works.

        With low_memory they are already less than that in memory: the work moves to `device`.
        """
        if not isinstance(self._residence, Mapped):
            if not self.low_memory:
                self.to("cpu")
            self._residence = Offloaded(torch.device(device))
        self.to(device)

    def _leave_on_disk(
        self, parts: Mapping[ComponentName, tuple[ComponentFiles, torch.dtype]]
    ) -> None:
        """Have outlines filled from their files, in a type, for the time of each use."""
        self._device = torch.device("cpu")
        named = {self.networks[part]: source for part, source in parts.items()}
        self._residence = Mapped(named, self._device)

    def compile(self) -> Self:
        """Have torch compile the steps of Stages B and C, whole; returns the object itself.

        The first image of each size and batch waits for it, minutes at the published size; other
        prompts, seeds and guidance scales need nothing new.
        """

        def settled() -> bool:
            return not self.low_memory

        self._forward_b = compiled(self.stage_b, settled)  # type: ignore[assignment]
        self._forward_c = compiled(self.stage_c, settled)  # type: ignore[assignment]
        return self

    @property
    def device(self) -> torch.device:
        """Where the work is done."""
        return self._device or next(self.stage_c.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of Stage C; other parts may work in another one."""
        return next(self.stage_c.parameters()).dtype

    @torch.inference_mode()
    def encode(self, encoder: TextEncoder, captions: Sequence[str]) -> Tensor:
        """Captions to (B, L, D); a caption that comes several times is encoded once."""
        distinct = list(dict.fromkeys(captions))
        called = f"the text encoder of Stage {'B' if encoder is self.text_b else 'C'}"
        with self._awake(encoder):
            rows = finite(called, encoder, encoder(distinct), lambda: encoder(distinct))
        return rows[[distinct.index(caption) for caption in captions]]

    @torch.inference_mode()
    def semantics_from_text(
        self,
        text: Tensor,
        draw: NoiseSource,
        size: tuple[int, int],
        walk: Walk,
        *,
        unwanted: Tensor | None = None,
        start: Tensor | None = None,
        watch: Watch = NOBODY,
    ) -> Tensor:
        """Stage C: (B, L, D) text to (B, S, h, w) unscaled semantics, in fp32.

        size      height and width of the image in pixels
        unwanted  (B, L, D), what guidance leads away from; not used where there is no guidance
        start     (B, S, h, w) noise in place of the first draw
        """
        shape = (len(text), self.stage_c.config.semantic_channels, *semantics_size(*size))
        if start is not None and start.shape != shape:
            raise SizeError(
                f"latents must be the start noise of Stage C, {shape}, found {tuple(start.shape)}."
            )
        state = self._state(self.stage_c, shape)

        def prepare(tensors: Mapping[str, Tensor], *, both: bool) -> StageCCondition:
            rows = tensors[TEXT] if both else tensors[TEXT][: len(text)]
            return self.stage_c.condition(self._taken(rows, self.stage_c))

        runner = Runner(
            stage="Stage C", network=self.stage_c, forward=self._forward_c, prepare=prepare
        )
        x = draw(state) if start is None else start.to(state, copy=True)
        with self._awake(self.stage_c):
            scaled = runner.run(_texts(text, unwanted, walk), walk, x, draw, watch)
        return unscale_semantics(scaled)

    @torch.inference_mode()
    def latents_from_semantics(
        self,
        semantics: Tensor,
        text: Tensor,
        draw: NoiseSource,
        walk: Walk,
        *,
        unwanted: Tensor | None = None,
        watch: Watch = NOBODY,
    ) -> Tensor:
        """Stage B: (B, S, h, w) unscaled semantics and (B, L, D) text to (B, 4, H/4, W/4) latents.

        unwanted  (B, L, D), what guidance leads away from, together with semantics of zeros
        """
        size = latent_size_of_semantics(*semantics.shape[2:])

        def prepare(tensors: Mapping[str, Tensor], *, both: bool) -> StageBCondition:
            wanted = self._taken(tensors[SEMANTICS], self.stage_b)
            text = self._taken(tensors[TEXT], self.stage_b)
            if both:
                wanted = torch.cat([wanted, torch.zeros_like(wanted)])
            return self.stage_b.condition(wanted, text[: len(wanted)], size)

        runner = Runner(
            stage="Stage B", network=self.stage_b, forward=self._forward_b, prepare=prepare
        )
        tensors = {**_texts(text, unwanted, walk), SEMANTICS: semantics}
        x = draw(self._state(self.stage_b, (len(semantics), LATENT_CHANNELS, *size)))
        with self._awake(self.stage_b):
            return runner.run(tensors, walk, x, draw, watch)

    @torch.inference_mode()
    def image_from_latents(self, latent: Tensor) -> Tensor:
        """Stage A: (B, 4, H/4, W/4) latents to (B, 3, H, W) pixels in [0, 1].

        Large images, and all of them where memory is to be saved, are decoded in strips.
        """
        height, width = latent.shape[2:]
        roomy = STRIP_CELLS if self.low_memory else ROOMY_CELLS
        rows = height if height * width <= roomy else max(1, STRIP_CELLS // width)

        def decode() -> Tensor:
            if rows < height:
                return self.stage_a.decode_in_strips(latent, rows)
            return self.stage_a.decode(latent)

        with self._awake(self.stage_a):
            return finite("Stage A", self.stage_a, decode(), decode)

    @property
    def low_memory(self) -> bool:
        """Whether weights are in memory only while their network works."""
        return not isinstance(self._residence, Always)

    def _awake(self, network: nn.Module) -> AbstractContextManager[None]:
        return self._residence.awake(network)

    def _state(self, network: nn.Module, shape: tuple[int, ...]) -> Tensor:
        """What a sampler walks with: never below fp32, whatever the network works in."""
        kind = torch.promote_types(next(network.parameters()).dtype, torch.float32)
        return torch.empty(shape, device=self.device, dtype=kind)

    def _taken(self, x: Tensor, network: nn.Module) -> Tensor:
        """x as the network takes it; a text encoder may work in another number format."""
        return x.to(self.device, next(network.parameters()).dtype)


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


def _texts(text: Tensor, unwanted: Tensor | None, walk: Walk) -> dict[str, Tensor]:
    """The text tensors of a stage by name."""
    if not walk.guidance.active:
        return {TEXT: text}
    if unwanted is None:
        raise ConfigError("Guidance needs a text to lead away from: pass unwanted=, or scale 1.")
    return {TEXT: torch.cat([text, unwanted]), UNWANTED: unwanted}  # TEXT: (2 B, L, D)
