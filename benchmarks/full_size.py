"""A model of the published sizes with random weights, as files in the published layout.

`python -m benchmarks.full_size FOLDER` writes two repositories that belong together, a decoder and
its prior: 12.4 GB in fp32, half of that in bf16, in the memory of a few blocks of numbers.
"""

import argparse
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.jobs import dtype_of
from wuerstchen.config import StageAModel, StageBModel, StageCModel
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import learn_tokenizer
from wuerstchen.weights.files import write_json
from wuerstchen.weights.names import STAGE_A, STAGE_B, STAGE_C, published_config, published_key
from wuerstchen.weights.streaming import write_stream

DECODER, PRIOR = "wuerstchen", "wuerstchen-prior"
"""Names of the two folders, those of the published repositories."""
PROMPT = "a red fox in the snow"
TOKENS = 77
VOCABULARY = 49_408
"""Rows of the published text encoders. The tokenizer here knows fewer, which changes no size."""
BLOCK = 2**21
"""Random numbers that are made; larger tensors repeat them. Memory does not look at values."""
NETWORK_FILE, TEXT_FILE = "diffusion_pytorch_model.safetensors", "model.safetensors"


class TextSizes(NamedTuple):
    """A published text encoder of CLIP."""

    width: int
    depth: int
    heads: int
    inner: int


BIG_G = TextSizes(width=1280, depth=32, heads=20, inner=5120)
"""CLIP ViT-bigG/14, of Stage C."""
H = TextSizes(width=1024, depth=24, heads=16, inner=4096)
"""CLIP ViT-H/14, of Stage B."""


def write_pair(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[Path, Path]:
    """Write a decoder, whose README.md names the prior, and the prior; the two folders."""
    decoder, prior = folder / DECODER, folder / PRIOR
    with torch.device("meta"):
        a, b, c = StageA(StageAModel()), StageB(StageBModel()), StageC(StageCModel())
    for where, config, names, network in (
        (decoder / "vqgan", a.config, STAGE_A, a),
        (decoder / "decoder", b.config, STAGE_B, b),
        (prior / "prior", c.config, STAGE_C, c),
    ):
        state = {published_key(key, names): value for key, value in network.state_dict().items()}
        _write(where, NETWORK_FILE, published_config(config, names), state, dtype)
    tokenizer = learn_tokenizer([PROMPT], 600, TOKENS)
    for where, sizes in ((decoder, H), (prior, BIG_G)):
        model = _text_outline(sizes, tokenizer)
        state = dict(model.state_dict())
        _write(where / "text_encoder", TEXT_FILE, model.config.to_dict(), state, dtype)
        tokenizer.save_pretrained(where / "tokenizer")
    for where, name in ((decoder, "Decoder"), (prior, "Prior")):
        write_json(where / "model_index.json", {"_class_name": f"Wuerstchen{name}Pipeline"})
    card = f"---\nprior:\n  - {json.dumps(str(prior.resolve()))}\n---\nRandom weights.\n"
    (decoder / "README.md").write_text(card, encoding="utf-8")
    return decoder, prior


def largest_part(decoder: Path, prior: Path) -> int:
    """Bytes of the largest file of weights."""
    files = [path for folder in (decoder, prior) for path in folder.rglob("*.safetensors")]
    return max(path.stat().st_size for path in files)


def _text_outline(sizes: TextSizes, tokenizer: CLIPTokenizer) -> nn.Module:
    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=sizes.width,
        intermediate_size=sizes.inner,
        num_hidden_layers=sizes.depth,
        num_attention_heads=sizes.heads,
        max_position_embeddings=TOKENS,
        hidden_act="gelu",
        projection_dim=sizes.width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.device("meta"):
        return CLIPTextModel(config)


def _write(
    folder: Path,
    name: str,
    config: Mapping[str, object],
    state: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    chunks = {key: _values(key, outline, dtype) for key, outline in state.items()}
    write_stream(folder / name, chunks, {}, None)


def _values(key: str, outline: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Random numbers in the shape of `outline`, as blocks of rows that follow each other.

    Weights have half the spread that keeps the size of what passes through; all else has 0.1.
    """
    shape = outline.shape
    if not outline.is_floating_point():
        return [torch.zeros(shape, dtype=outline.dtype)]
    if key.endswith("running_var") or ("norm" in key and key.endswith("weight")):
        return [torch.ones(shape, dtype=dtype)]
    row = shape[1:].numel()
    is_weight = len(shape) > 1 and shape[0] > 1
    spread = 0.5 / row**0.5 if is_weight else 0.1
    at_once = min(shape[0], BLOCK // row)
    block = _noise(spread, dtype)[: at_once * row].reshape(at_once, *shape[1:])
    whole, rest = divmod(shape[0], at_once)
    return [block] * whole + ([block[:rest]] if rest else [])


@cache
def _noise(spread: float, dtype: torch.dtype) -> Tensor:
    """(BLOCK,) numbers; tensors share them, so that a model needs no memory of its size."""
    numbers = torch.randn(BLOCK, generator=torch.Generator().manual_seed(0))
    return (numbers * spread).to(dtype)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_size", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    words = parser.parse_args()
    for folder in write_pair(words.folder, dtype_of(words.dtype)):
        print(folder)


if __name__ == "__main__":
    main()
