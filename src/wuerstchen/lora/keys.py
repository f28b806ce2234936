"""Keys of LoRA files: which half of which layer they hold, and signs of what we cannot open."""

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from wuerstchen.lora.layers import flat
from wuerstchen.lora.lora import Format

Half = Literal["down", "up", "alpha"]


class Key(NamedTuple):
    """What one key of a file says."""

    module: str
    """The layer, as the file calls it, with its prefix."""
    half: Half


_HALF = re.compile(
    r"(?P<module>.+?)[._]lora(?:_linear_layer)?[._](?P<half>A|B|down|up)"
    r"(?:\.(?!weight$|bias$)[^.]+)?(?:\.weight)?"
)
_ALPHA = re.compile(r"(?P<module>.+?)\.(?:lora_)?alpha")
_PARAMETRIZED = re.compile(r"(.+)\.parametrizations\.(weight|in_proj_weight)\.\d+")

REFUSED: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), what)
    for pattern, what in (
        (r"\.(dora_scale|lora_magnitude_vector)\b", "a DoRA, which also rescales the weights"),
        (r"\.hada_w\d_", "a LoHa"),
        (r"\.lokr_w\d", "a LoKr"),
        (r"\.oft_", "an OFT adapter"),
        (r"\.lora_mid\.", "a LoCon with a third matrix per layer"),
        (r"\.lora_B\.(\w+\.)?bias$", "a LoRA that also changes biases"),
        (
            r"^weights\.\d+\.lora_(up|down)$",
            "a LoRA of StableCascade's own trainer, which numbers its layers without names",
        ),
    )
)

FOREIGN: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), what)
    for pattern, what in (
        (
            r"mapper_(crp|sca)|clip_(txt|img)_|down_downscalers|up_upscalers"
            r"|(^|_)(lora_)?prior_((unet|prior)_)?(down|up)_blocks_",
            "Stable Cascade (v3)",
        ),
        (
            r"(down|up)_blocks_\d+_(attentions|resnets|downsamplers|upsamplers)_|mid_block_"
            r"|input_blocks_|output_blocks_|middle_block_|lora_te2_|text_encoder_2_",
            "Stable Diffusion or SDXL",
        ),
        (
            r"double_blocks_|single_blocks_|single_transformer_blocks_|joint_blocks_"
            r"|transformer_blocks_\d",
            "a diffusion transformer such as SD 3 or Flux",
        ),
    )
)


def parse(key: str) -> Key | None:
    """What `key` says; None where it is no key of a LoRA."""
    if match := _HALF.fullmatch(key):
        half: Half = "down" if match["half"] in ("A", "down") else "up"
        return Key(_plain(match["module"]), half)
    if match := _ALPHA.fullmatch(key):
        return Key(_plain(match["module"]), "alpha")
    return None


def refused(keys: Iterable[str]) -> str | None:
    """What the file is, if it is a kind of adapter that would be wrong as a plain LoRA."""
    keys = tuple(keys)
    for pattern, what in REFUSED:
        for key in keys:
            if pattern.search(key):
                return f"{what} ({key})"
    return None


def foreign(keys: Iterable[str]) -> tuple[str, str] | None:
    """Another model that one of the keys speaks of, and that key."""
    for key in keys:
        for pattern, what in FOREIGN:
            if pattern.search(flat(key)):
                return what, key
    return None


def format_of(keys: Iterable[str], metadata: Iterable[str]) -> Format:
    """Whose names the keys are."""
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


def default_alpha(key: str, rank: int) -> float:
    """What alpha is where a file has none: the rank, so that the scale is 1.

    Parametrizations come from StableCascade's modules/lora.py, whose scale is 1 / rank.
    """
    return 1.0 if ".parametrizations." in key else float(rank)


def _plain(module: str) -> str:
    if match := _PARAMETRIZED.fullmatch(module):
        return match[1] if match[2] == "weight" else f"{match[1]}.{match[2]}"
    return module
