"""Score the images of a list of prompts."""

from collections.abc import Mapping, Sequence

import torch

from wuerstchen.data.prompts import Prompt
from wuerstchen.display import printable
from wuerstchen.errors import DataError
from wuerstchen.evaluation.alignment.judges import PREFIX, Judge
from wuerstchen.evaluation.alignment.record import Alignment, Scored
from wuerstchen.evaluation.distances.features import BATCH
from wuerstchen.evaluation.distances.images import (
    BACKGROUND,
    ImageSet,
    StoredImages,
    prompts_digest,
)
from wuerstchen.evaluation.distances.preparation import FILTERS, Preparation
from wuerstchen.evaluation.distances.record import Setting
from wuerstchen.evaluation.inputs import Progress, no_progress


def check_match(images: StoredImages, prompts: Sequence[Prompt]) -> None:
    """Raise DataError unless there is an image for each prompt, in their order.

    Captions of the images, where they have any, must be the prompts.
    """
    if len(images) != len(prompts):
        raise DataError(
            f"{images.path}: expected {len(prompts)} images, one for each prompt in their order, "
            f"found {len(images)}; name the images of this list of prompts."
        )
    for name, caption, prompt in zip(images.names, images.own_captions, prompts, strict=True):
        if caption and caption != prompt.text:
            raise DataError(
                f"{images.path}: expected image {name} to be of the prompt {printable(prompt.text)}"
                f", found the caption {printable(caption)}; name the list that it was drawn from."
            )


def measure(
    images: ImageSet,
    prompts: Sequence[Prompt],
    judge: Judge,
    *,
    about: Mapping[str, Setting],
    progress: Progress = no_progress,
) -> Alignment:
    """Score image k for prompt k.

    about  what is known of the images, such as the model and its sampler

    Raises DataError for an image that cannot be read.
    """
    preparation, found = Preparation(), []
    progress("images", 0, len(prompts))
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        loaded = images.load(start, start + len(batch))
        pixels = torch.stack([preparation(image, judge.side) for image, _ in loaded])
        scores = judge.score(pixels, [prompt.text for prompt in batch])
        for k, prompt in enumerate(batch):
            own = {name: float(values[k]) for name, values in scores.items()}
            found.append(Scored(prompt.text, prompt.category, own))
        progress("images", start + len(batch), len(prompts))
    protocol: dict[str, Setting] = {
        "judge": judge.name,
        "judge_weights": judge.weights,
        "tokenizer_sha256": judge.tokenizer,
        "normalisation": judge.normalisation,
        "side": judge.side,
        "filter": FILTERS[preparation.resize],
        "crop": preparation.crop,
        "background": BACKGROUND,
        "prefix": PREFIX if judge.name == "clip" else None,
        "prompts": len(prompts),
        "prompts_sha256": prompts_digest([prompt.text for prompt in prompts]),
        "categories_sha256": prompts_digest([prompt.category for prompt in prompts]),
        "images_per_prompt": 1,
    }
    return Alignment(protocol, about, found)
