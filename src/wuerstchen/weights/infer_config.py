"""Infer a network's config from the shapes of its tensors, for files without a config.

Values that no shape shows are the published ones: attention heads of width 64, Stage A's scale
0.3764, the dropout of training.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from wuerstchen.config import Section
from wuerstchen.errors import ModelFolderError
from wuerstchen.models.compressor import LAST_WIDTH, STAGES
from wuerstchen.models.stage_b import subpixel_factor
from wuerstchen.weights.headers import TensorInfo
from wuerstchen.weights.layout import PLACES, ComponentName

HEAD_WIDTH = 64
S = TypeVar("S", bound=Section)
Tensors = Mapping[str, TensorInfo]


def stage_a_sizes(tensors: Tensors) -> dict[str, object]:
    codebook = tensors.get("vquantizer.codebook.weight") or tensors["vquantizer.embedding.weight"]
    return {
        "width": tensors["up_blocks.0.0.weight"].shape[0],
        # One block of the decoder follows the upsampling, all others precede it.
        "depth": _blocks(tensors, "up_blocks.", ".gammas") - 1,
        "codebook": codebook.shape[0],
        "latent_channels": codebook.shape[1],
    }


def stage_b_sizes(tensors: Tensors) -> dict[str, object]:
    levels = 1 + max(int(key.split(".")[1]) for key in tensors if key.startswith("down_blocks."))
    widths, blocks, heads = [], [], []
    for level in range(levels):
        here = f"down_blocks.{level}."
        first = f"{here}{min(level, 1)}.depthwise.weight"  # element 0 of lower levels halves
        widths.append(tensors[first].shape[0])
        blocks.append(_blocks(tensors, here, ".depthwise.weight"))
        heads.append(_heads(widths[-1]) if _blocks(tensors, here, ".kv_mapper.1.weight") else 0)
    mappers = [tensors.get(f"effnet_mappers.{level}.weight") for level in range(levels)]
    condition_width, text_width = tensors["clip_mapper.weight"].shape
    first_time = next(key for key in tensors if key.endswith(".mapper.weight"))
    patch = math.isqrt(tensors["embedding.1.weight"].shape[1] // 4)
    sizes: dict[str, object] = {
        "widths": widths,
        "blocks": blocks,
        "heads": heads,
        "semantics": [mapper is not None for mapper in mappers],
        "condition_width": condition_width,
        "text_width": text_width,
        "time_width": tensors[first_time].shape[1],
        "patch": patch,
    }
    read = [mapper for mapper in mappers if mapper is not None]
    if read:  # otherwise no level reads semantics, and their channels change nothing
        subpixel = tensors.get("subpixel.0.weight")
        made = 0 if subpixel is None else subpixel.shape[0] // subpixel_factor(patch) ** 2
        sizes |= {"semantic_channels": read[0].shape[1] - made, "subpixel_channels": made}
    return sizes


def stage_c_sizes(tensors: Tensors) -> dict[str, object]:
    width, channels = tensors["projection.weight"].shape[:2]
    return {
        "semantic_channels": channels,
        "width": width,
        "depth": _blocks(tensors, "blocks.", ".depthwise.weight"),
        "heads": _heads(width),
        "text_width": tensors["cond_mapper.0.weight"].shape[1],
        "time_width": tensors["blocks.1.mapper.weight"].shape[1],
    }


def compressor_sizes(tensors: Tensors) -> dict[str, object]:
    blocks = {tuple(key.split(".")[1:3]) for key in tensors if key.startswith("backbone.")}
    counts = [sum(stage == str(i) for stage, _ in blocks) for i in range(1, len(STAGES) + 1)]
    # Several factors can round to the same block counts: each makes the same network.
    depth = next(
        factor / 1000
        for factor in range(1000, 0, -1)
        if [max(1, round(stage.blocks * factor / 1000)) for stage in STAGES] == counts
    )
    channels, last = tensors["mapper.0.weight"].shape[:2]
    return {
        "channels": channels,
        "width": last / LAST_WIDTH,
        "depth": depth,
        "affine": "mapper.1.weight" in tensors,
        "patch_embedding": "patch_embedding.2.weight" in tensors,
    }


SIZES: dict[ComponentName, Callable[[Tensors], dict[str, object]]] = {
    "stage_a": stage_a_sizes,
    "stage_b": stage_b_sizes,
    "stage_c": stage_c_sizes,
    "compressor": compressor_sizes,
}


def infer_config(path: Path, component: ComponentName, section: type[S], tensors: Tensors) -> S:
    """The config of a component from its tensors, by keys without prefix.

    Raises ModelFolderError where the shapes are not those of such a network.
    """
    title = PLACES[component].title
    try:
        return section.model_validate(SIZES[component](tensors))
    except (KeyError, IndexError, ValueError, StopIteration) as error:
        reason = f"unexpected shapes: {error}"
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}, found {first['input']!r}"
        raise ModelFolderError(
            f"{path}: the sizes of {title} cannot be inferred from its shapes ({reason}); "
            "copy it again, or put its config.json next to it or name that file (--config)."
        ) from None


def _heads(width: int) -> int:
    if width % HEAD_WIDTH:
        raise ValueError(
            f"attention of width {width}; heads are {HEAD_WIDTH} wide, which does not divide it"
        )
    return width // HEAD_WIDTH


def _blocks(tensors: Tensors, start: str, end: str) -> int:
    return sum(key.startswith(start) and key.endswith(end) for key in tensors)
