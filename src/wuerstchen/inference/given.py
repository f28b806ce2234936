"""Tensors that a caller gives in place of what a stage would make, checked before any work.

B images, S semantic channels, h x w cells of semantics, L tokens, D text width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wuerstchen.errors import ConfigError, SizeError
from wuerstchen.geometry import SEMANTICS_STRIDE, SIZE_STEP

CELLS_STEP = round(SIZE_STEP / SEMANTICS_STRIDE)
"""Cells of semantics per 128 pixels: 3."""

ImageEmbeddings = Tensor | Sequence[Tensor] | NDArray[np.float32]
"""Semantics in the forms that diffusers' decoder takes; a list is joined."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """Raises ConfigError for numbers that are not finite."""

    prompt_embeds: Tensor | None = None
    """(prompts, L, D) for Stage C in place of prompts."""
    negative_prompt_embeds: Tensor | None = None
    latents: Tensor | None = None
    """(B, S, h, w) noise that Stage C starts from; (B, 4, H/4, W/4) of Stage B if it runs alone."""
    image_embeddings: Tensor | None = None
    """(images, S, h, w) semantics, in place of Stage C."""

    def __post_init__(self) -> None:
        for name, tensor in vars(self).items():
            if tensor is not None and not bool(tensor.isfinite().all()):
                raise ConfigError(f"{name} must hold finite numbers, found NaN or infinity.")


NOTHING = Given()


def joined_embeddings(given: ImageEmbeddings, channels: int) -> Tensor:
    """(images, S, h, w) semantics in fp32; SizeError for a shape that Stage B cannot read."""
    try:
        if isinstance(given, Tensor):
            joined = given
        elif isinstance(given, np.ndarray):
            joined = torch.from_numpy(given)
        else:
            joined = torch.cat(list(given))
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        reason = str(error).split("\n")[0]
        raise ConfigError(
            "image_embeddings must be a tensor, an array, or a list of tensors of equal shape "
            f"({reason})."
        ) from None
    shape = tuple(joined.shape)
    fits = joined.ndim == 4 and shape[0] > 0 and shape[1] == channels
    if not fits or any(side == 0 or side % CELLS_STEP for side in shape[2:]):
        raise SizeError(
            f"image_embeddings must be (images, {channels}, h, w) with h and w multiples of "
            f"{CELLS_STEP}, {CELLS_STEP} cells for every {SIZE_STEP} pixels, found {shape}."
        )
    if not joined.is_floating_point():
        raise ConfigError(f"image_embeddings must be floating-point numbers, found {joined.dtype}.")
    return joined.float()


def size_of_embeddings(semantics: Tensor, height: int | None, width: int | None) -> tuple[int, int]:
    """Height and width in pixels of the images of these semantics.

    Raises SizeError where the caller requests another size.
    """
    found = tuple(side * SIZE_STEP // CELLS_STEP for side in semantics.shape[2:])
    for name, asked, side in zip(("height", "width"), (height, width), found, strict=True):
        if asked is not None and asked != side:
            raise SizeError(
                f"{name} must be that of the image_embeddings, {side} pixels, found {asked}; "
                "leave it out."
            )
    return found[0], found[1]


def check_alone(arguments: Mapping[str, object]) -> None:
    """Raise ConfigError for an argument of Stage C, which image_embeddings replace."""
    for name, value in arguments.items():
        if value is not None:
            raise ConfigError(
                f"image_embeddings take the place of Stage C, which would read {name}; pass one "
                "of the two. Arguments of Stage B are num_inference_steps and decoder_…."
            )
