"""Networks that score an image for a prompt: clip=PATH and pickscore=PATH. B images, F features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoTokenizer

from wuerstchen.digests import files_digest
from wuerstchen.errors import ConfigError, ModelFolderError
from wuerstchen.evaluation.distances.pretrained import (
    load_model,
    normalisation_of,
    pooled,
    preprocessing,
    weights_digest,
)
from wuerstchen.weights import find
from wuerstchen.weights.layout import tokenizer_files

KINDS = ("clip", "pickscore")

PREFIX = "A photo depicts "
"""Put before the prompt by the first definition of CLIPScore."""

TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))

TITLES = {
    "clipscore": "CLIPScore, 2.5 max(cos, 0) with prefix",
    "clipscore_100": "CLIPScore, 100 cos without prefix",
    "pickscore": "PickScore, logit",
}
"""CLIPScore as in arXiv:2104.08718, CLIPScore as in torchmetrics, and arXiv:2305.01569."""


@dataclass(frozen=True)
class Judge:
    """A network that scores images for prompts."""

    name: str
    weights: str
    """SHA-256 of its weights."""
    side: int
    """Of the square images that it takes, in pixels."""
    normalisation: str
    """Mean and deviation by which pixels in [0, 1] are normalised."""
    tokenizer: str
    """SHA-256 of the files of its tokenizer."""
    score: Callable[[Tensor, Sequence[str]], dict[str, Tensor]]
    """(B, 3, side, side) pixels in [0, 1] and B prompts to (B,) scores by the keys of `TITLES`."""


def open_judge(text: str, device: torch.device) -> Judge:
    """The judge that NAME=PATH stands for; PATH may be a hub id.

    Raises ConfigError for an unknown name or no path, ModelFolderError for a folder that is
    incomplete, damaged or of another network.
    """
    name, _, path = text.partition("=")
    if name not in KINDS or not path:
        raise ConfigError(
            f"--judge: expected clip=PATH or pickscore=PATH, found {text!r}; PATH is a folder with "
            "config.json, model.safetensors and a tokenizer, or a hub id."
        )
    folder = find(path)
    model = load_model("clip", folder).to(device)  # type: ignore[arg-type]
    tokenize = _tokenizer(folder, model.config.text_config.max_position_embeddings)
    side, mean, std = preprocessing("clip", folder, model)
    centre, scale = (torch.tensor(x, device=device).view(1, 3, 1, 1) for x in (mean, std))

    def embed_text(prompts: Sequence[str]) -> Tensor:
        ids, mask = tokenize(prompts)
        found = model.get_text_features(input_ids=ids.to(device), attention_mask=mask.to(device))
        return F.normalize(pooled(found), dim=1)

    @torch.inference_mode()
    def score(images: Tensor, prompts: Sequence[str]) -> dict[str, Tensor]:
        pixels = (images.to(device) - centre) / scale
        image = F.normalize(pooled(model.get_image_features(pixel_values=pixels)), dim=1)
        plain = (image * embed_text(prompts)).sum(dim=1).cpu()
        if name == "pickscore":
            return {"pickscore": plain * model.logit_scale.exp().cpu()}
        prefixed = embed_text([PREFIX + prompt for prompt in prompts])
        cosine = (image * prefixed).sum(dim=1).cpu()
        return {"clipscore": 2.5 * cosine.clamp_min(0), "clipscore_100": 100 * plain}

    normalisation, tokenizer = normalisation_of(mean, std), files_digest(tokenizer_files(folder))
    return Judge(name, weights_digest(folder), side, normalisation, tokenizer, score)


def _tokenizer(folder: Path, length: int) -> Callable[[Sequence[str]], tuple[Tensor, Tensor]]:
    """Prompts to (B, L) tokens and their mask; longer prompts are cut off, as the judges do."""
    # transformers makes a tokenizer without words, and says nothing, where its files are missing.
    if not any(all((folder / name).is_file() for name in names) for names in TOKENIZER_FILES):
        raise _no_tokenizer(folder, "neither tokenizer.json nor vocab.json with merges.txt")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers and tokenizers raise many kinds
        raise _no_tokenizer(folder, " ".join(str(error).split())[:300]) from None

    def tokenize(prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        found = tokenizer(
            list(prompts), padding=True, truncation=True, max_length=length, return_tensors="pt"
        )
        return found["input_ids"], found["attention_mask"]

    return tokenize


def _no_tokenizer(folder: Path, found: str) -> ModelFolderError:
    return ModelFolderError(
        f"{folder}: expected the tokenizer of a CLIP, found {found}; copy those of the published "
        "CLIP that the network is of."
    )
