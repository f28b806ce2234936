"""Features of a set of images, computed in chunks that can be kept, so that work can be resumed."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from wuerstchen.atomic_write import write_file
from wuerstchen.errors import DataError
from wuerstchen.evaluation.distances.images import ImageSet
from wuerstchen.evaluation.distances.networks import FeatureNetwork
from wuerstchen.evaluation.distances.preparation import Preparation

CHUNK = 100
"""Images between two files of kept features: what an interruption loses."""

BATCH = 20
"""Images at a time: what is drawn and computed together."""

VERSION = 1
"""Of the features; raise it when they change, so that kept ones are not used."""

Advance = Callable[[int], None]
"""Called with the number of images done."""


@dataclass(frozen=True)
class Extracted:
    """The features of a set and what is known of its images."""

    features: Tensor
    """(N, F)."""
    digest: str
    """SHA-256 of the images' content, in their order."""
    sizes: str
    """Such as 256 x 256, or the least and the greatest."""


@dataclass(frozen=True)
class _Chunk:
    features: Tensor
    digests: list[str]
    sizes: list[tuple[int, int]]


def extract(
    images: ImageSet,
    network: FeatureNetwork,
    preparation: Preparation,
    keep: Path | None,
    advance: Advance,
) -> Extracted:
    """Features of all images.

    keep  a folder: chunks are read from it, or written to it where they are missing

    Raises DataError for an image that cannot be read and for kept features that are damaged.
    """
    settings = [VERSION, network.name, network.weights, network.side, network.layer]
    settings += [network.normalisation, images.key]
    settings += [preparation.resize, preparation.crop, preparation.size]
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
    chunks = []
    for start in range(0, len(images), CHUNK):
        stop = min(start + CHUNK, len(images))
        path = keep / f"{key}-{start}-{stop}.safetensors" if keep is not None else None
        chunk = _read(path, stop - start) if path is not None and path.exists() else None
        if chunk is None:
            chunk = _compute(images, network, preparation, start, stop, advance)
            if path is not None:
                _write(path, chunk)
        chunks.append(chunk)
        advance(stop)
    sizes = [size for chunk in chunks for size in chunk.sizes]
    text = "".join(digest for chunk in chunks for digest in chunk.digests)
    return Extracted(
        torch.cat([chunk.features for chunk in chunks]),
        hashlib.sha256(text.encode()).hexdigest(),
        _describe(sizes),
    )


def _compute(
    images: ImageSet,
    network: FeatureNetwork,
    preparation: Preparation,
    first: int,
    last: int,
    advance: Advance,
) -> _Chunk:
    found, digests, sizes = [], [], []
    for start in range(first, last, BATCH):
        stop = min(start + BATCH, last)
        loaded = images.load(start, stop)
        pixels = [preparation(image, network.side) for image, _ in loaded]
        found.append(_finite(network.features(torch.stack(pixels)).float()))
        digests += [digest for _, digest in loaded]
        sizes += [image.size for image, _ in loaded]
        advance(stop)
    return _Chunk(torch.cat(found), digests, sizes)


def _finite(features: Tensor) -> Tensor:
    if not features.isfinite().all():
        raise DataError(
            "The feature network returns values that are not finite, between which there is no "
            "distance; its weights are damaged: copy them again."
        )
    return features


def _write(path: Path, chunk: _Chunk) -> None:
    about = {"digests": json.dumps(chunk.digests), "sizes": json.dumps(chunk.sizes)}
    write_file(path, save({"features": chunk.features}, about))


def _read(path: Path, count: int) -> _Chunk:
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            digests: list[str] = json.loads(about["digests"])
            sizes = [(int(width), int(height)) for width, height in json.loads(about["sizes"])]
            features: Tensor = file.get_tensor("features")
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"{path}: expected features that were kept there, found damage ({error}); delete it."
        ) from None
    if not len(features) == len(digests) == len(sizes) == count:
        raise DataError(f"{path}: expected features of {count} images, found others; delete it.")
    return _Chunk(features, digests, sizes)


def _describe(sizes: list[tuple[int, int]]) -> str:
    """Of images that are wider or narrower than each other, the smallest and the largest."""
    least, most = (pick(sizes, key=lambda size: (size[0] * size[1], size)) for pick in (min, max))
    names = [f"{width} x {height}" for width, height in (least, most)]
    return names[0] if least == most else " to ".join(names)
