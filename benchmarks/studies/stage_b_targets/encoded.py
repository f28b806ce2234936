"""Images with their latents and semantics from a frozen Stage A and compressor, cached on disk.

N images, S x S pixels, D semantic channels, h x w cells of semantics.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from wuerstchen import weights
from wuerstchen.config import DataConfig
from wuerstchen.data import Pairs, open_pairs
from wuerstchen.models.compressor import Compressor, shrink
from wuerstchen.models.stage_a import StageA

BATCH_SIZE = 32


@dataclass(frozen=True)
class EncodedSplit:
    """One split of a data set."""

    images: Tensor
    """(N, 3, S, S) uint8."""
    latents: Tensor
    """(N, 4, S/4, S/4)"""
    semantics: Tensor
    """(N, D, h, w), unscaled."""

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int) -> "EncodedSplit":
        """The first `count` images."""
        return EncodedSplit(self.images[:count], self.latents[:count], self.semantics[:count])


def load_or_encode(
    model: Path, data: str, size: int, cache: Path
) -> tuple[EncodedSplit, EncodedSplit]:
    """The train and the test split of `data`, encoded by the model folder `model`.

    size   side of the images in pixels
    cache  folder for the encodings
    """
    train, test, _ = open_pairs(DataConfig(path=data, size=size))
    key = hashlib.sha256(f"{model} {train.digest()} {test.digest()} {size}".encode()).hexdigest()
    path = cache / f"{key[:16]}.safetensors"
    if not path.exists():
        stage_a, compressor = weights.stage_a.load(model), weights.compressor.load(model)
        encoded: dict[str, Tensor] = {}
        for pairs in (train, test):
            for name, tensor in vars(_encode(pairs, stage_a, compressor)).items():
                encoded[f"{pairs.split}.{name}"] = tensor
        cache.mkdir(parents=True, exist_ok=True)
        save_file(encoded, path)
    tensors = load_file(path)
    train_set, test_set = (
        EncodedSplit(*(tensors[f"{split}.{name}"] for name in ("images", "latents", "semantics")))
        for split in ("train", "test")
    )
    return train_set, test_set


@torch.no_grad()
def _encode(pairs: Pairs, stage_a: StageA, compressor: Compressor) -> EncodedSplit:
    images = torch.stack([pairs.image(i) for i in range(len(pairs))])
    latents, semantics = [], []
    for batch in images.split(BATCH_SIZE):
        pixels = batch.float() / 255
        latents.append(stage_a.encode(pixels))
        semantics.append(compressor(shrink(pixels)))
    return EncodedSplit(images, torch.cat(latents).contiguous(), torch.cat(semantics).contiguous())
