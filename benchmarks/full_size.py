"""A model of the published sizes with random weights, as files in the published layout.

`python -m benchmarks.full_size FOLDER` writes a decoder repository and its prior: 12.4 GB in fp32
when read, and a few hundred MB on a file system with sparse files.
"""

import argparse
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.jobs import dtype_of
from wuerstchen.config import StageAModel, StageBModel, StageCModel
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.models.text import learn_tokenizer
from wuerstchen.weights.files import DTYPE_NAMES, write_json
from wuerstchen.weights.names import STAGE_A, STAGE_B, STAGE_C, published_config, published_key

DECODER, PRIOR = "wuerstchen", "wuerstchen-prior"
"""Names of the two folders, those of the published repositories."""
PROMPT = "a red fox in the snow"
TOKENS = 77
VOCABULARY = 49_408
"""Vocabulary of the published text encoders; the tokenizer here is smaller, at equal sizes."""
RANDOM = 2**16
"""Maximum number of random values per tensor. The zeros after them are holes in the file: they use
no disk space, and memory like all others when read."""
NETWORK_FILE, TEXT_FILE = "diffusion_pytorch_model.safetensors", "model.safetensors"


class TextSizes(NamedTuple):
    """Sizes of a published CLIP text encoder."""

    width: int
    depth: int
    heads: int
    inner: int


BIG_G = TextSizes(width=1280, depth=32, heads=20, inner=5120)
"""CLIP ViT-bigG/14, of Stage C."""
H = TextSizes(width=1024, depth=24, heads=16, inner=4096)
"""CLIP ViT-H/14, of Stage B."""


def write_pair(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[Path, Path]:
    """Write a decoder, whose README.md names the prior, and the prior; returns the two folders."""
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
        model = _empty_text_encoder(sizes, tokenizer)
        state = dict(model.state_dict())
        _write(where / "text_encoder", TEXT_FILE, model.config.to_dict(), state, dtype)
        tokenizer.save_pretrained(where / "tokenizer")
    for where, name in ((decoder, "Decoder"), (prior, "Prior")):
        write_json(where / "model_index.json", {"_class_name": f"Wuerstchen{name}Pipeline"})
    card = f"---\nprior:\n  - {json.dumps(str(prior.resolve()))}\n---\nRandom weights.\n"
    (decoder / "README.md").write_text(card, encoding="utf-8")
    return decoder, prior


def _empty_text_encoder(sizes: TextSizes, tokenizer: CLIPTokenizer) -> CLIPTextModel:
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
    dtypes = {
        key: dtype if outline.is_floating_point() else outline.dtype
        for key, outline in state.items()
    }
    keys = sorted(state, key=lambda key: -dtypes[key].itemsize)  # aligned
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    starts, end = {}, 0
    for key in keys:
        starts[key], end = end, end + state[key].numel() * dtypes[key].itemsize
        header[key] = {
            "dtype": DTYPE_NAMES[dtypes[key]],
            "shape": list(state[key].shape),
            "data_offsets": [starts[key], end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / name).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key in keys:
            file.seek(8 + len(text) + starts[key])
            values = _first_values(key, state[key]).to(dtypes[key])
            file.write(values.view(torch.uint8).numpy().data)
        file.truncate(8 + len(text) + end)


def _first_values(key: str, outline: Tensor) -> Tensor:
    """(N,) random values, the first of the tensor; all others are zeros.

    Weights have half the standard deviation that preserves the scale of activations, others 0.1.
    """
    count = min(RANDOM, outline.numel())
    if not outline.is_floating_point():
        return torch.zeros(count)
    if key.endswith("running_var") or ("norm" in key and key.endswith("weight")):
        return torch.ones(count)
    is_weight = outline.dim() > 1 and len(outline) > 1
    return _noise()[:count] * (0.5 / outline[0].numel() ** 0.5 if is_weight else 0.1)


@cache
def _noise() -> Tensor:
    return torch.randn(RANDOM, generator=torch.Generator().manual_seed(0))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_size", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    options = parser.parse_args()
    for folder in write_pair(options.folder, dtype_of(options.dtype)):
        print(folder)


if __name__ == "__main__":
    main()
