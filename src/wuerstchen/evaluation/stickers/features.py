"""Features of all stickers of a set, cropped as scenes are, and of crops of scenes."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from wuerstchen.atomic_write import write_file
from wuerstchen.data.stickers import BACKGROUNDS, Sprite
from wuerstchen.data.stickers.backgrounds import MAX_SIMILAR
from wuerstchen.data.stickers.random_choices import RandomChoices
from wuerstchen.data.stickers.sprites import background_similarity, image_of
from wuerstchen.errors import DataError
from wuerstchen.evaluation.inputs import Progress, no_progress
from wuerstchen.evaluation.stickers.network import SIDE, FeatureNetwork
from wuerstchen.evaluation.stickers.segmentation import FILL

BATCH = 16
"""Crops at a time: on a CPU their maps stay in its caches, and 64 take a quarter longer."""

CROPS = 256
"""Stickers that are cropped at a time."""

VERSION = 1
"""Of the features; raise it when they change, so that kept ones are not used."""

SHARPNESS = ((1.0, 1.0), (0.35, 0.75))
"""Of each view, the range of scales at which a sticker is seen before it is enlarged to a crop."""


def features_of(network: FeatureNetwork, crops: Sequence[Image.Image]) -> Tensor:
    """(N, F) features of square RGB crops."""
    found = []
    for start in range(0, len(crops), BATCH):
        batch = np.stack([np.asarray(crop) for crop in crops[start : start + BATCH]])
        found.append(network(torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255))
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
    keys = digest(sprites)
    if path is None:
        return compute()
    if not path.exists():
        computed = compute()
        write_file(path, save({"features": computed}, {"stickers": keys}))
        return computed
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("stickers") == keys:
                features: Tensor = file.get_tensor("features")
                if features.ndim == 3 and features.shape[1] == len(sprites):
                    return features
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: expected features of stickers, found: {error}.") from None
    raise DataError(
        f"{path}: expected features of these {len(sprites)} stickers, found those of others; "
        "name a new file."
    )


def digest(sprites: Sequence[Sprite]) -> str:
    """Identifies the stickers and how their features are computed."""
    text = "\n".join([f"{VERSION}", *(sprite.key for sprite in sprites)])
    return hashlib.sha256(text.encode()).hexdigest()


def sprite_crop(sprite: Sprite, view: int, index: int) -> Image.Image:
    """A sticker on a random background that contrasts with it, as `segmentation.crop` has it."""
    rng = RandomChoices(view, index)
    similar = background_similarity(sprite)
    clear = [name for name, fraction in similar.items() if fraction <= MAX_SIMILAR]
    background = BACKGROUNDS[rng.pick(clear or [min(similar, key=lambda name: similar[name])])]
    image = image_of(sprite).convert("RGBa")
    sharpness = rng.uniform(*SHARPNESS[view])
    for side in (sharpness * SIDE * FILL, SIDE * FILL):
        scale = side / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (SIDE, SIDE), background)
    place = ((SIDE - image.width) // 2, (SIDE - image.height) // 2)
    square.alpha_composite(image.convert("RGBA"), place)
    return square.convert("RGB")
