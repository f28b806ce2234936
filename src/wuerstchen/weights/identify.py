"""Identify the networks in a file by keys and shapes: which component, of which generation.

Three generations share the name: version 1, whose Stage B samples tokens; version 2 of the paper,
which is ours; and version 3, Stable Cascade.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wuerstchen.errors import ModelFolderError
from wuerstchen.weights.component_files import Naming
from wuerstchen.weights.headers import Header, TensorInfo
from wuerstchen.weights.layout import FOLDERS, PLACES, ComponentName

Generation = Literal["v1", "v2", "v3"]

EMA = "ema_state_dict."
NEEDS: dict[Generation, str] = {
    "v1": "it needs the authors' first code (github.com/dome272/Wuerstchen), whose Stage B "
    "samples tokens; use the weights of version 2, such as warp-ai/wuerstchen",
    "v2": "",
    "v3": "it needs other networks: open it with StableCascadePriorPipeline and "
    "StableCascadeDecoderPipeline of diffusers, or use the weights of version 2, such as "
    "warp-ai/wuerstchen",
}
GENERATIONS: dict[Generation, str] = {
    "v1": "version 1 of Würstchen",
    "v2": "version 2 of Würstchen",
    "v3": "Stable Cascade (version 3 of Würstchen)",
}
V3_CLASSES = ("StableCascadeUNet", "StableCascadePriorPipeline", "StableCascadeDecoderPipeline")

LARGE_STEM = 32
"""Channels of the first convolution of EfficientNetV2-L, the compressor of version 1; S has 24."""
PUBLISHED_PRIOR = (1536, 32)
"""Width and depth of the published Stage C, versions 1 and 2, which differ in the text width."""
FIRST_TEXT_WIDTH = 1024


@dataclass(frozen=True, slots=True)
class Identified:
    """A network among the keys of a file."""

    component: ComponentName
    generation: Generation
    naming: Naming
    prefix: str
    tensors: Mapping[str, TensorInfo]
    """By keys without the prefix."""


def identify(header: Header) -> dict[ComponentName, Identified]:
    """Every network in the file; among several of one component the EMA, then the first."""
    chosen: dict[ComponentName, Identified] = {}
    for prefix, tensors in header.groups().items():
        if (name := _component(tensors, prefix)) is None:
            continue
        generation, naming = _generation(name, tensors), _naming(name, tensors)
        found = Identified(name, generation, naming, prefix, tensors)
        before = chosen.get(name)
        if before is None or (EMA in found.prefix and EMA not in before.prefix):
            chosen[name] = found
    return chosen


def refuse_foreign(found: Identified, path: Path) -> None:
    """Raise ModelFolderError for versions 1 and 3."""
    if found.generation != "v2":
        raise ForeignModelError(path, PLACES[found.component].title, found.generation)


class ForeignModelError(ModelFolderError):
    """A model of version 1 or 3."""

    def __init__(self, path: Path, title: str, generation: Generation) -> None:
        self.title = title
        self.generation = generation
        super().__init__(
            f"{path} contains {title} of {GENERATIONS[generation]}, expected version 2; "
            f"{NEEDS[generation]}."
        )


def _component(tensors: Mapping[str, TensorInfo], prefix: str) -> ComponentName | None:
    if "in_block.1.weight" in tensors and "up_blocks.0.0.weight" in tensors:
        return "stage_a"
    if "backbone.0.0.weight" in tensors and "mapper.0.weight" in tensors:
        return "compressor"
    # Stages B and C of Stable Cascade are one network; they differ in their conditioning.
    if "clip_txt_mapper.weight" in tensors:
        return "stage_c"
    if "in_mapper.0.weight" in tensors or "clf.1.weight" in tensors:
        return "stage_b"
    if "projection.weight" in tensors and "cond_mapper.0.weight" in tensors:
        return "stage_c"
    if any(key.endswith("embeddings.token_embedding.weight") for key in tensors):
        return FOLDERS.get(prefix.removesuffix("."), "text_c")
    return None


def _generation(component: ComponentName, tensors: Mapping[str, TensorInfo]) -> Generation:
    if component == "stage_b" and "in_mapper.0.weight" in tensors:
        return "v1"
    if component in ("stage_b", "stage_c"):
        if component == "stage_b" and "clip_mapper.weight" not in tensors:
            return "v3"
        if "effnet_mapper.0.weight" in tensors or "clip_txt_mapper.weight" in tensors:
            return "v3"
    if component == "compressor" and tensors["backbone.0.0.weight"].shape[:1] == (LARGE_STEM,):
        return "v1"
    if component == "stage_c":
        width, text = tensors["cond_mapper.0.weight"].shape
        depth = sum(key.endswith(".depthwise.weight") for key in tensors)
        if (width, depth) == PUBLISHED_PRIOR and text == FIRST_TEXT_WIDTH:
            return "v1"
    return "v2"


def _naming(component: ComponentName, tensors: Mapping[str, TensorInfo]) -> Naming:
    """Only these keys differ; a network without any of them is the same in both namings."""
    if component == "stage_a":
        return "original" if "vquantizer.codebook.weight" in tensors else "published"
    joined = any(key.endswith(".attention.attn.in_proj_weight") for key in tensors)
    return "original" if joined else "published"
