"""Keys of LoRA files, and the keys of files that cannot be opened."""

import re
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Literal

from wuerstchen.lora.layers import flat
from wuerstchen.lora.lora import Format

Half = Literal["down", "up", "alpha"]

_HALF = re.compile(
    r"(?P<module>.+?)[._]lora(?:_linear_layer)?[._](?P<half>A|B|down|up)"
    r"(?:\.(?!weight$|bias$)[^.]+)?(?:\.weight)?"
)
_ALPHA = re.compile(r"(?P<module>.+?)\.(?:lora_)?alpha")
_PARAMETRIZED = re.compile(r"(.+)\.parametrizations\.(weight|in_proj_weight)\.\d+")

MAX_PATTERN, MAX_REPEATS = 300, 3
"""Of patterns of layers: characters, and repetitions or groups."""

REFUSED: Mapping[str, str] = {
    r"\.(dora_scale|lora_magnitude_vector)\b": "a DoRA, which also rescales the weights",
    r"\.hada_w\d_": "a LoHa",
    r"\.lokr_w\d": "a LoKr",
    r"\.oft_": "an OFT adapter",
    r"\.lora_mid\.": "a LoCon with a third matrix per layer",
    r"\.lora_B\.(\w+\.)?bias$": "a LoRA that also changes biases",
    r"^weights\.\d+\.lora_(up|down)$": "a LoRA of StableCascade that numbers layers without names",
}
"""Patterns of keys that only unsupported kinds of adapters have."""
FOREIGN: Mapping[str, str] = {
    (
        r"mapper_(crp|sca)|clip_(txt|img)_|down_downscalers|up_upscalers"
        r"|(^|_)(lora_)?prior_((unet|prior)_)?(down|up)_blocks_"
    ): "Stable Cascade (v3)",
    (
        r"(down|up)_blocks_\d+_(attentions|resnets|downsamplers|upsamplers)_|mid_block_"
        r"|input_blocks_|output_blocks_|middle_block_|lora_te2_|text_encoder_2_"
    ): "Stable Diffusion or SDXL",
    (
        r"double_blocks_|single_blocks_|single_transformer_blocks_|joint_blocks_"
        r"|transformer_blocks_\d"
    ): "a diffusion transformer such as SD 3 or Flux",
}
"""Patterns of keys, with underscores for dots, that only LoRAs of other models have."""


def parse(key: str) -> tuple[str, Half] | None:
    """The layer's name, with its prefix, and half; None for a key that no LoRA has."""
    if match := _HALF.fullmatch(key):
        return _plain(match["module"]), "down" if match["half"] in ("A", "down") else "up"
    if match := _ALPHA.fullmatch(key):
        return _plain(match["module"]), "alpha"
    return None


def refused(keys: Iterable[str]) -> str | None:
    """The kind of adapter, if it would give wrong results as a plain LoRA."""
    found = (
        f"{what} ({key})"
        for (pattern, what), key in product(REFUSED.items(), keys)
        if re.search(pattern, key)
    )
    return next(found, None)


def foreign(keys: Iterable[str]) -> tuple[str, str] | None:
    """Another model that a key belongs to, and that key."""
    found = (
        (what, key)
        for key, (pattern, what) in product(keys, FOREIGN.items())
        if re.search(pattern, flat(key))
    )
    return next(found, None)


def format_of(keys: Iterable[str], metadata: Iterable[str]) -> Format:
    """The tool whose names the keys have."""
    keys = tuple(keys)
    if any(re.search(r"\.attn\.(in_proj(?!\.\d)|out_proj)|\.parametrizations\.", k) for k in keys):
        return "original"
    if any(key.startswith("base_model.model.") for key in keys):
        return "peft"
    if any(name.startswith("ot_") for name in metadata) or any(
        re.match(r"lora_prior_prior|lora_(prior_)?(unet|te)\.|bundle_emb", key)
        or re.search(r"_attn_to_[qkv]|\.in_proj\.\d", key)
        for key in keys
    ):
        return "onetrainer"
    return "kohya" if any(key.startswith("lora_") for key in keys) else "diffusers"


def is_bounded(pattern: str) -> bool:
    """Whether a regular expression from a file is simple enough that no name takes it long.

    Each repetition, option and group multiplies the ways to compare it with a name.
    """
    plain = re.sub(r"\\.", "", pattern)
    if not re.search(r"[*+?{(]", plain):
        return True
    if re.search(r"\)[*+?{]", plain) or len(pattern) > MAX_PATTERN:
        return False
    repeated = re.sub(r"[*+?}]{2}", "*", plain)  # such as .*?
    return len(re.findall(r"[*+?{]", repeated)) <= MAX_REPEATS and plain.count("(") <= MAX_REPEATS


def _plain(module: str) -> str:
    if match := _PARAMETRIZED.fullmatch(module):
        return match[1] if match[2] == "weight" else f"{match[1]}.{match[2]}"
    return module
