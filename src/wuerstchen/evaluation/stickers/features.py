"""Features of all stickers of a set, cropped as scenes are, and of crops of scenes."""

import hashlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from wuerstchen.atomic_write import write_file
from wuerstchen.data.stickers import BACKGROUNDS, Sprite
from wuerstchen.data.stickers.backgrounds import MAX_SIMILAR
from wuerstchen.data.stickers.random_choices import RandomChoices
from wuerstchen.data.stickers.sprites import background_similarity, digest_of, image_of
from wuerstchen.errors import DataError
from wuerstchen.evaluation.inputs import Progress, no_progress
from wuerstchen.evaluation.stickers.crop_features import SIDE, FeatureNetwork
from wuerstchen.evaluation.stickers.segmentation import FILL, crop

BATCH = 16
"""Crops at a time: on a CPU their maps stay in its caches, and 64 take a quarter longer."""

CROPS = 256
"""Stickers that are cropped at a time."""

VERSION = 2
"""Of the features; raise it when they change, so that kept ones are not used."""

SHARPNESS = ((1.0, 1.4), (0.35, 0.9))
"""Of each view, the range of a sticker's longer side in its scene, relative to that in a crop."""

SOFT, MOST_BLUR = 0.7, 0.03
"""Fraction of the second view that is blurred, and the largest radius relative to the sticker."""

MARGIN = 0.06
"""Background around a sticker in its scene, relative to its longer side."""

PACKED, QUALITY = 0.5, (40, 95)
"""Fraction of the second view that is stored as JPEG, and the range of its quality."""


def features_of(network: FeatureNetwork, crops: Sequence[Image.Image]) -> Tensor:
    """(N, F) features of square RGB crops."""
    return in_batches(network, crops)


def in_batches(function: Callable[[Tensor], Tensor], images: Sequence[Image.Image]) -> Tensor:
    """What a function of (B, 3, H, W) pixels in [0, 1] gives for RGB images of one size."""
    found = []
    for start in range(0, len(images), BATCH):
        batch = np.stack([np.asarray(image) for image in images[start : start + BATCH]])
        found.append(function(torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255))
    return torch.cat(found)


def sprite_features(
    network: FeatureNetwork, sprites: Sequence[Sprite], progress: Progress = no_progress
) -> Tensor:
    """(V, N, F) features in half precision: each sticker sharp, and as in a smaller scene."""
    views = []
    with ThreadPoolExecutor() as pool:
        for view in range(len(SHARPNESS)):
            found = []
            for start in range(0, len(sprites), CROPS):
                stop = min(start + CROPS, len(sprites))
                numbers = range(start, stop)
                crops = pool.map(sprite_crop, sprites[start:stop], repeat(view), numbers)
                found.append(features_of(network, list(crops)).half())
                progress("judge", view * len(sprites) + stop, len(SHARPNESS) * len(sprites))
            views.append(torch.cat(found))
    return torch.stack(views)


def kept_features(
    path: Path | None, sprites: Sequence[Sprite], compute: Callable[[], Tensor]
) -> Tensor:
    """`sprite_features` from a .safetensors file, which is written if it is missing.

    Raises DataError for a file that is damaged or of other stickers.
    """
    if path is None:
        return compute()
    stickers = digest(sprites)
    if not path.exists():
        computed = compute()
        write_file(path, save({"features": computed}, {"stickers": stickers}))
        return computed
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("stickers") == stickers:
                features: Tensor = file.get_tensor("features")
                if features.ndim == 3 and features.shape[1] == len(sprites):
                    return features
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{path}: expected features of stickers, found: {error}; delete the file, or name a "
            "new one."
        ) from None
    raise DataError(
        f"{path}: expected features of these {len(sprites)} stickers, found those of others or "
        "of an earlier version; delete the file, or name a new one."
    )


def digest(sprites: Sequence[Sprite]) -> str:
    """Of the stickers, their images included, and of how their features are computed."""
    return hashlib.sha256(f"{VERSION}\n{digest_of(sprites)}".encode()).hexdigest()


def sprite_crop(sprite: Sprite, view: int, index: int) -> Image.Image:
    """A sticker's crop from a scene on a background that contrasts with it.

    The first view is sharp; the second is small, mostly soft, and half the time from a JPEG, as
    what a model draws: otherwise softness would be taken for a style.
    """
    rng = RandomChoices(view, index)
    similar = background_similarity(sprite)
    clear = [name for name, fraction in similar.items() if fraction <= MAX_SIMILAR]
    background = BACKGROUNDS[rng.pick(clear or [min(similar, key=lambda name: similar[name])])]
    image = image_of(sprite).convert("RGBa")
    longer_side = rng.uniform(*SHARPNESS[view]) * SIDE * FILL
    scale = longer_side / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    margin = max(1, round(longer_side * MARGIN))
    scene = Image.new("RGBA", (width + 2 * margin, height + 2 * margin), background)
    scene.alpha_composite(image.convert("RGBA"), (margin, margin))
    flat = _softened(scene.convert("RGB"), longer_side, rng) if view else scene.convert("RGB")
    return crop(flat, (margin, margin, margin + width, margin + height), SIDE)


def _softened(image: Image.Image, longer_side: float, rng: RandomChoices) -> Image.Image:
    if rng.chance(SOFT):
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, MOST_BLUR) * longer_side))
    if rng.chance(PACKED):
        packed = io.BytesIO()
        image.save(packed, "JPEG", quality=round(rng.uniform(*QUALITY)))
        with Image.open(packed) as opened:
            image = opened.convert("RGB")
    return image
