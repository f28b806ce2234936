"""What a file of weights is, by its keys and shapes: which part, of which generation.

Three generations carry the name: version 1 with a Stage B that draws tokens, version 2 of the
paper, which is ours, and version 3, Stable Cascade.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wuerstchen.errors import ModelFolderError
from wuerstchen.weights.headers import Header, Stored
from wuerstchen.weights.layout import FOLDERS, PLACES, Part
from wuerstchen.weights.parts import Naming, PartFiles

Generation = Literal["v1", "v2", "v3"]

AVERAGED = "ema_state_dict."

NEEDS: dict[Generation, str] = {
    "v1": "it needs the first code of the authors (github.com/dome272/Wuerstchen), where Stage B "
    "draws tokens; use the weights of version 2, such as warp-ai/wuerstchen",
    "v2": "",
    "v3": "it needs other networks: open it with StableCascadePriorPipeline and "
    "StableCascadeDecoderPipeline of diffusers, or use the weights of version 2, such as "
    "warp-ai/wuerstchen",
}
CALLED: dict[Generation, str] = {
    "v1": "version 1 of Würstchen",
    "v2": "version 2 of Würstchen",
    "v3": "Stable Cascade (version 3 of Würstchen)",
}
CASCADE_CLASSES = (
    "StableCascadeUNet",
    "StableCascadePriorPipeline",
    "StableCascadeDecoderPipeline",
)

LARGE_STEM = 32
"""Channels of the first convolution of EfficientNetV2-L, the compressor of version 1; S has 24."""
PUBLISHED_PRIOR = (1536, 32)
"""Width and depth of the published Stage C, versions 1 and 2, which differ in the text width."""
FIRST_TEXT_WIDTH = 1024


@dataclass(frozen=True, slots=True)
class Found:
    """A network among the keys of a file."""

    part: Part
    generation: Generation
    naming: Naming
    prefix: str
    tensors: Mapping[str, Stored]
    """By keys without the prefix."""

    def files(self, path: Path) -> PartFiles:
        return PartFiles(part=self.part, weights=path, naming=self.naming, prefix=self.prefix)


def networks(header: Header) -> dict[Part, Found]:
    """Every network in the file; of several for one part the averaged one, then the first."""
    chosen: dict[Part, Found] = {}
    for found in _all(header):
        before = chosen.get(found.part)
        if before is None or (AVERAGED in found.prefix and AVERAGED not in before.prefix):
            chosen[found.part] = found
    return chosen


def refuse_foreign(found: Found, path: Path) -> None:
    """Raises ModelFolderError for versions 1 and 3."""
    if found.generation != "v2":
        raise ForeignModelError(path, PLACES[found.part].title, found.generation)


class ForeignModelError(ModelFolderError):
    """A model of version 1 or 3."""

    def __init__(self, path: Path, title: str, generation: Generation) -> None:
        self.title = title
        self.generation = generation
        super().__init__(
            f"{path} holds {title} of {CALLED[generation]}, expected version 2; "
            f"{NEEDS[generation]}."
        )


def _all(header: Header) -> Iterator[Found]:
    for prefix, tensors in header.groups().items():
        if (part := _part(tensors, prefix)) is not None:
            yield Found(part, _generation(part, tensors), _naming(part, tensors), prefix, tensors)


def _part(tensors: Mapping[str, Stored], prefix: str) -> Part | None:
    if "in_block.1.weight" in tensors and "up_blocks.0.0.weight" in tensors:
        return "stage_a"
    if "backbone.0.0.weight" in tensors and "mapper.0.weight" in tensors:
        return "compressor"
    # Stages B and C of Stable Cascade are one network, told apart by what conditions them.
    if "clip_txt_mapper.weight" in tensors:
        return "stage_c"
    if "in_mapper.0.weight" in tensors or "clf.1.weight" in tensors:
        return "stage_b"
    if "projection.weight" in tensors and "cond_mapper.0.weight" in tensors:
        return "stage_c"
    if any(key.endswith("embeddings.token_embedding.weight") for key in tensors):
        return FOLDERS.get(prefix.removesuffix("."), "text_c")
    return None


def _generation(part: Part, tensors: Mapping[str, Stored]) -> Generation:
    if part == "stage_b" and "in_mapper.0.weight" in tensors:
        return "v1"
    if part in ("stage_b", "stage_c"):
        if part == "stage_b" and "clip_mapper.weight" not in tensors:
            return "v3"
        if "effnet_mapper.0.weight" in tensors or "clip_txt_mapper.weight" in tensors:
            return "v3"
    if part == "compressor" and tensors["backbone.0.0.weight"].shape[:1] == (LARGE_STEM,):
        return "v1"
    if part == "stage_c":
        width, text = tensors["cond_mapper.0.weight"].shape
        depth = sum(key.endswith(".depthwise.weight") for key in tensors)
        if (width, depth) == PUBLISHED_PRIOR and text == FIRST_TEXT_WIDTH:
            return "v1"
    return "v2"


def _naming(part: Part, tensors: Mapping[str, Stored]) -> Naming:
    """Only these keys differ; a network that has none of them is the same in both."""
    if part == "stage_a":
        return "original" if "vquantizer.codebook.weight" in tensors else "published"
    joined = any(key.endswith(".attention.attn.in_proj_weight") for key in tensors)
    return "original" if joined else "published"
