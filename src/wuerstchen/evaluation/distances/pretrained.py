"""CLIP, SigLIP and DINOv2 by transformers, from a folder. B images, F features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPModel, Dinov2Model, PreTrainedModel, SiglipModel
from transformers.utils import logging as transformers_logging

from wuerstchen.digests import file_digest, files_digest
from wuerstchen.errors import ModelFolderError
from wuerstchen.parsing import ParseError, parse_object, read_bytes

CLASSES: dict[str, type[PreTrainedModel]] = {
    "clip": CLIPModel,
    "siglip": SiglipModel,
    "dinov2": Dinov2Model,
}

LAYERS = {
    "clip": "projected image embedding",
    "siglip": "image embedding",
    "dinov2": "class token after the last norm",
}

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MEAN_AND_STD = {
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "dinov2": IMAGENET,
}
"""Of the pixels, where the folder has no preprocessor_config.json; those of the published ones."""

DINOV2_SIDE = 224
"""The published networks are of 518 pixels, and are used at this side."""


@dataclass(frozen=True)
class Pretrained:
    """A network of transformers on one device."""

    model: PreTrainedModel
    weights: str
    """SHA-256 of its weights."""
    side: int
    layer: str
    normalisation: str
    """Of the pixels, as `normalisation_of` says it."""
    features: Callable[[Tensor], Tensor]
    """(B, 3, side, side) pixels in [0, 1] to (B, F), both on the CPU."""


def open_pretrained(kind: str, folder: Path, device: torch.device) -> Pretrained:
    """A network of `CLASSES`.

    Raises ModelFolderError for a folder that is incomplete, damaged or of another network.
    """
    model = load_model(kind, folder).to(device)  # type: ignore[arg-type]
    side, mean, std = preprocessing(kind, folder, model)
    centre, scale = (torch.tensor(x, device=device).view(1, 3, 1, 1) for x in (mean, std))

    @torch.inference_mode()
    def features(images: Tensor) -> Tensor:
        pixels = (images.to(device) - centre) / scale
        if kind == "dinov2":
            return pooled(model(pixel_values=pixels)).cpu()
        return pooled(model.get_image_features(pixel_values=pixels)).cpu()

    normalisation = normalisation_of(mean, std)
    return Pretrained(model, weights_digest(folder), side, LAYERS[kind], normalisation, features)


def load_model(name: str, folder: Path) -> PreTrainedModel:
    """A network of `CLASSES` in evaluation mode, in fp32.

    Raises ModelFolderError for a folder of another network, and for weights that do not fit.
    """
    found = _read_json(folder / "config.json").get("model_type")
    if found != name:
        raise ModelFolderError(
            f"{folder / 'config.json'}: expected model_type {name!r}, found {found!r}; name a "
            f"folder of {name}."
        )
    kind = CLASSES[name]
    transformers_logging.disable_progress_bar()
    try:
        loaded: tuple[PreTrainedModel, dict[str, set[str]]] = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )  # type: ignore[assignment]  # with output_loading_info, it returns both
    except Exception as error:  # transformers raises many kinds, some of them plain RuntimeErrors
        reason = " ".join(str(error).split())[:300]
        raise ModelFolderError(
            f"{folder}: expected a {kind.__name__} with config.json and model.safetensors, found: "
            f"{reason}; copy it again, or name another folder."
        ) from None
    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        others = sorted(info["unexpected_keys"])
        instead = f"found {others[0]}" if others else "found nothing in its place"
        raise ModelFolderError(
            f"{folder}: expected the weights of a {kind.__name__}, but {missing[0]} is missing "
            f"({instead}); copy it again, or name another folder."
        )
    ready: PreTrainedModel = model.requires_grad_(False).eval()
    return ready


def pooled(output: object) -> Tensor:
    """(B, F) of what a network returns; early releases of transformers 5 return the tensor."""
    found = output if isinstance(output, Tensor) else output.pooler_output  # type: ignore[attr-defined]
    assert isinstance(found, Tensor)
    return found


def weights_digest(folder: Path) -> str:
    """SHA-256 of the weights: of the file, or of the digests of several in the order of names."""
    files = sorted(folder.glob("*.safetensors"))
    return file_digest(files[0]) if len(files) == 1 else files_digest(files)


def preprocessing(
    kind: str, folder: Path, model: PreTrainedModel
) -> tuple[int, list[float], list[float]]:
    """Side, mean and deviation of the pixels, as the folder or the published network has them.

    Raises ModelFolderError for a preprocessor_config.json that cannot be read.
    """
    mean, std = (list(each) for each in MEAN_AND_STD[kind])
    if kind == "dinov2":
        side = min(DINOV2_SIDE, int(model.config.image_size))
    else:
        side = int(model.config.vision_config.image_size)
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return side, mean, std
    stated = _read_json(path)
    for key in ("crop_size", "size"):
        found = stated.get(key)
        if isinstance(found, dict):
            found = found.get("height", found.get("shortest_edge"))
        if isinstance(found, int) and found > 0 and not isinstance(found, bool):
            side = found
            break
    return side, _three(stated, "image_mean", mean, path), _three(stated, "image_std", std, path)


def normalisation_of(mean: Sequence[float], std: Sequence[float]) -> str:
    """What is subtracted from pixels in [0, 1], and what they are divided by, for a card."""
    return "; ".join(
        f"{name} {', '.join(map(repr, values))}"
        for name, values in (("mean", mean), ("deviation", std))
    )


def _three(stated: dict[str, object], key: str, usual: list[float], path: Path) -> list[float]:
    found = stated.get(key, usual)
    if (
        not isinstance(found, list)
        or len(found) != 3
        or not all(isinstance(x, int | float) for x in found)
    ):
        raise ModelFolderError(f"{path}: expected three numbers for {key}, found {found!r}.")
    return [float(x) for x in found]


def _read_json(path: Path) -> dict[str, object]:
    try:
        return parse_object(read_bytes(path))
    except (OSError, ParseError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelFolderError(
            f"{path}: expected a JSON object of a network of transformers, but {reason}; name a "
            "folder with config.json and model.safetensors."
        ) from None
