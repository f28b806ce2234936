"""Keys of CLIP text models: files have them with and without `text_model.`, transformers too."""

import re
from collections.abc import Iterable
from functools import cache

import torch
from transformers import CLIPTextConfig, CLIPTextModel

START = "text_model."
BESIDE = re.compile(
    r"(embeddings\.position_ids|text_projection\.weight|logit_scale"
    r"|visual_projection\.weight|vision_model\..+)"
)
"""What published files hold beside a text model: positions, projections, the whole CLIP."""


def text_names(keys: Iterable[str]) -> dict[str, str]:
    """A file's keys to the names in a CLIPTextModel, without what is not of a text model."""
    bare = {key: key.removeprefix(START) for key in keys}
    return {key: _start() + name for key, name in bare.items() if not BESIDE.fullmatch(name)}


@cache
def _start() -> str:
    """Versions of transformers differ: what names begin with in the one that is installed."""
    with torch.device("meta"):
        tiny = CLIPTextModel(
            CLIPTextConfig(hidden_size=4, num_attention_heads=1, num_hidden_layers=1)
        )
    return START if next(iter(tiny.state_dict())).startswith(START) else ""
