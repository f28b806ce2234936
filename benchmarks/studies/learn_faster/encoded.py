"""Scenes of single stickers, encoded once by frozen stages and cached.

N scenes, S x S pixels, D semantic channels, h x w cells of semantics.
"""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from wuerstchen import weights
from wuerstchen.atomic_write import write_file
from wuerstchen.data.stickers import (
    BACKGROUNDS,
    STYLES,
    Composer,
    Mix,
    Part,
    Sprites,
    open_sprites,
)
from wuerstchen.data.stickers.source import SceneSource
from wuerstchen.errors import DataError
from wuerstchen.models.compressor import Compressor, shrink
from wuerstchen.models.stage_a import StageA
from wuerstchen.training.latent_cache import weights_digest

SIDE = 128
"""Pixels."""

AT_ONCE = 50

SEEDS = {"train": 0, "test": 1, "held-out": 1}
"""Of the composer, for each split."""

PARTS: dict[str, Part] = {"train": "train", "test": "train", "held-out": "test-cells"}
"""test: other scenes of the pairs of object and style in training; held-out: of other pairs."""

LABELS = ("object", "style", "background")
"""What a scene shows, in the order of the columns of `Split.labels`."""


@dataclass(frozen=True)
class Split:
    """Encoded scenes with their captions and labels."""

    semantics: Tensor
    """(N, D, h, w), unscaled."""
    labels: Tensor
    """(N, 3) indices of the object, the style and the background."""
    latents: Tensor
    """(M, 4, S/4, S/4) of the first M scenes."""
    images: Tensor
    """(M, 3, S, S) uint8 of the same scenes."""
    captions: list[list[str]]
    """Of each scene; the first one names object, style and background."""

    def __len__(self) -> int:
        return len(self.semantics)


@dataclass(frozen=True)
class Sizes:
    """How much is encoded."""

    objects: int
    styles: int
    """Least number of styles in which training has an object."""
    scenes: int
    """For training."""
    prompts: int
    """Scenes of `test`, and of `held-out`."""
    latents: int
    """Training scenes with latents, for Stage B."""
    pictures: int
    """Scenes of `held-out` with latents and images."""


def load_or_encode(stickers: Path, model: str, sizes: Sizes, cache: Path) -> dict[str, Split]:
    """The splits of `PARTS`, encoded by the Stage A and compressor of a model folder.

    cache  folder for the encodings

    Raises DataError if the folder has encodings by another model, of other stickers or sizes.
    """
    parts = {part: open_sprites(stickers, part) for part in set(PARTS.values())}
    folder = Path(weights.find(model))
    stage_a, compressor = weights.stage_a.load(folder), weights.compressor.load(folder)
    origin = {
        "model": f"{weights_digest(stage_a)} {weights_digest(compressor)}",
        "stickers": " ".join(_digest(parts[part]) for part in sorted(parts)),
        "sizes": json.dumps(asdict(sizes)),
    }
    path = cache / "scenes.safetensors"
    if path.exists():
        _check(path, origin)
    else:
        _encode_all(parts, stage_a, compressor, sizes, cache, origin)
    tensors = load_file(path)
    captions = json.loads((cache / "captions.json").read_text(encoding="utf-8"))
    return {
        split: Split(
            tensors[f"{split}.semantics"],
            tensors[f"{split}.labels"],
            tensors[f"{split}.latents"],
            tensors[f"{split}.images"],
            captions[split],
        )
        for split in PARTS
    }


def _digest(sprites: Sprites) -> str:
    """Of keys, names, styles and images."""
    return SceneSource(Composer(sprites, SIDE, 0), 1).digest()


def _check(path: Path, origin: dict[str, str]) -> None:
    with safe_open(path, "pt") as file:
        found = file.metadata() or {}
    differing = " and ".join(key for key in origin if found.get(key) != origin[key])
    if differing:
        raise DataError(
            f"{path}: expected encodings by this model, of these stickers and sizes, found some "
            f"with other {differing}; name another folder with --out."
        )


def _encode_all(
    parts: dict[Part, Sprites],
    stage_a: StageA,
    compressor: Compressor,
    sizes: Sizes,
    cache: Path,
    origin: dict[str, str],
) -> None:
    """origin: metadata of the file"""
    names = _choose_objects(parts["train"], parts["test-cells"], sizes)
    tensors: dict[str, Tensor] = {}
    captions: dict[str, list[list[str]]] = {}
    for split, part in PARTS.items():
        sprites = Sprites(part, [sprite for sprite in parts[part].all if sprite.name in names])
        composer = Composer(sprites, SIDE, SEEDS[split], Mix(pair=0.0, several=0.0))
        train = split == "train"
        scenes = sizes.scenes if train else sizes.prompts
        with_latents = {"train": sizes.latents, "test": 0, "held-out": sizes.pictures}[split]
        encoded, captions[split] = _encode(
            composer, names, stage_a, compressor, scenes, with_latents
        )
        tensors |= {f"{split}.{name}": tensor for name, tensor in encoded.items()}
    cache.mkdir(parents=True, exist_ok=True)
    write_file(cache / "captions.json", json.dumps(captions).encode())
    write_file(cache / "scenes.safetensors", save(tensors, origin))


def _choose_objects(train: Sprites, held_out: Sprites, sizes: Sizes) -> list[str]:
    """Objects of one or two words with a held-out pair, evenly spaced in alphabetical order."""
    styles = Counter(sprite.name for sprite in train.all)
    suitable = sorted(
        name
        for name in {sprite.name for sprite in held_out.all}
        if styles[name] >= sizes.styles and len(name.split()) <= 2
    )
    return suitable[:: max(1, len(suitable) // sizes.objects)][: sizes.objects]


@torch.no_grad()
def _encode(
    composer: Composer,
    names: list[str],
    stage_a: StageA,
    compressor: Compressor,
    scenes: int,
    with_latents: int,
) -> tuple[dict[str, Tensor], list[list[str]]]:
    backgrounds = list(BACKGROUNDS)
    semantics, labels, latents, images = [], [], [], []
    captions: list[list[str]] = []
    for start in range(0, scenes, AT_ONCE):
        composed = [composer[i] for i in range(start, min(start + AT_ONCE, scenes))]
        levels = torch.from_numpy(np.stack([np.asarray(each.image) for each in composed]))
        batch = levels.permute(0, 3, 1, 2).contiguous()  # (B, 3, S, S)
        semantics.append(compressor(shrink(batch.float() / 255)))
        kept = batch[: max(0, with_latents - start)]
        images.append(kept)
        if len(kept):
            latents.append(stage_a.encode(kept.float() / 255))
        for each in composed:
            shown = each.truth.objects[0]
            labels.append(
                [
                    names.index(shown.name),
                    STYLES.index(shown.style),
                    backgrounds.index(each.truth.background),
                ]
            )
            captions.append([caption.text for caption in each.captions])
    no_latents = torch.empty(0, 4, SIDE // 4, SIDE // 4)
    encoded = {
        "semantics": torch.cat(semantics),
        "labels": torch.tensor(labels),
        "latents": torch.cat(latents) if latents else no_latents,
        "images": torch.cat(images),
    }
    return {name: tensor.contiguous() for name, tensor in encoded.items()}, captions
