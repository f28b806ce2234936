"""Small models in the layouts of the published ones, and the lists of published keys.

The lists were taken from the authors' files: keys and shapes of vqgan_f4_v1_500k.pt,
model_v2_stage_b.pt and model_v3_stage_c.pt, which is of version 2 despite its name.
"""

import ast
import json
import shutil
from pathlib import Path

import torch
from torch import Tensor, nn

from wuerstchen.config import CompressorModel, StageAModel, StageBModel, StageCModel

LISTS = Path(__file__).parent / "published"

# Attention heads are 64 wide, as in the published files, so that shapes show all sizes.
A = StageAModel(width=16, depth=2, codebook=32)
B = StageBModel(
    widths=(32, 64, 128),
    blocks=(1, 2, 1),
    heads=(0, 1, 2),
    semantics=(False, True, True),
    condition_width=24,
    text_width=32,
    time_width=16,
)
C = StageCModel(width=64, depth=2, heads=1, text_width=32, time_width=16)
COMPRESSOR = CompressorModel(width=0.25, depth=0.1, affine=False)


def published_list(name: str) -> dict[str, tuple[int, ...]]:
    lines = (LISTS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split(" ", 1) for line in lines if line)
    return {key: ast.literal_eval(shape) for key, shape in pairs}


def authors_state(network: nn.Module) -> dict[str, Tensor]:
    """The state dict of our network under the authors' names, implemented a second time."""
    prefixes = {
        "StageA": (("codebook.embedding.", "vquantizer.codebook."),),
        "StageB": (("text_mapper.", "clip_mapper."), ("semantics_mappers.", "effnet_mappers.")),
        "StageC": (("text_mapper.", "cond_mapper."),),
    }.get(type(network).__name__, ())
    head = {"StageB": "clf.", "StageC": "out."}.get(type(network).__name__, "head.")
    state, joined = {}, {}
    for name, tensor in network.state_dict().items():
        for ours, theirs in (*prefixes, ("head.", head)):
            if name.startswith(ours):
                name = theirs + name.removeprefix(ours)
        before, found, kind = name.rpartition(".to_")
        if found and kind[0] in "qkv":
            key = f"{before}.attn.in_proj_{kind[2:]}"
            joined.setdefault(key, {})[kind[0]] = tensor
        else:
            state[name.replace(".to_out.0.", ".attn.out_proj.")] = tensor
    for key, thirds in joined.items():
        state[key] = torch.cat([thirds["q"], thirds["k"], thirds["v"]])
    return state


def two_repositories(model: Path, into: Path) -> tuple[Path, Path]:
    """Split a model folder as on the hub: into a decoder and a prior."""
    decoder, prior = into / "wuerstchen", into / "wuerstchen-prior"
    for folder in ("vqgan", "decoder", "text_encoder", "tokenizer"):
        shutil.copytree(model / folder, decoder / folder)
    for ours, theirs in (
        ("prior_prior", "prior"),
        ("prior_text_encoder", "text_encoder"),
        ("prior_tokenizer", "tokenizer"),
    ):
        shutil.copytree(model / ours, prior / theirs)
    for folder, name in ((decoder, "Decoder"), (prior, "Prior")):
        index = {"_class_name": f"Wuerstchen{name}Pipeline"}
        (folder / "model_index.json").write_text(json.dumps(index))
    return decoder, prior


def to_cache(folder: Path, cache: Path, hub_id: str) -> Path:
    """Store a folder as the hub client does: blobs, a snapshot of links to them, and a ref."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    (repository / "blobs").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    for number, path in enumerate(sorted(p for p in folder.rglob("*") if p.is_file())):
        blob = repository / "blobs" / f"{number:040x}"
        shutil.copyfile(path, blob)
        link = repository / "snapshots" / commit / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    return repository
