"""The prompts of a call: one for each image, checked, and encoded for Stages C and B.

B images, L tokens, D text width.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from wuerstchen.display import printable
from wuerstchen.errors import ConfigError
from wuerstchen.inference.cascade import Cascade
from wuerstchen.inference.generation_plan import GenerationPlan
from wuerstchen.inference.given import Given
from wuerstchen.models.text import TextEncoder

MOST_IMAGES = 1_000_000
"""Images that one call or command makes: more are a typing error."""


class PromptWarning(UserWarning):
    """A prompt has more tokens than the text encoder reads."""


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """A prompt and a negative prompt for each image."""

    positive: list[str]
    negative: list[str]

    @property
    def count(self) -> int:
        return len(self.positive)


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Encoded prompts, (B, L, D) each."""

    c: Tensor | None
    """Of Stage C; None where it does not run."""
    negative_c: Tensor | None
    """None without guidance."""
    b: Tensor
    negative_b: Tensor | None


def prompts_of(
    prompt: str | Sequence[str] | None,
    negative_prompt: str | Sequence[str] | None,
    embeds: int | None,
    per_prompt: int,
    semantics: int | None = None,
    images: int | None = None,
) -> Prompts:
    """One prompt for each image; the images of the first prompt come first.

    embeds     rows of the `prompt_embeds`
    semantics  rows of the `image_embeddings`, each with its own prompt, or all with one
    images     images to start from: the same, or one for all prompts

    Without a prompt (one of the two is given) or a negative one, it is an empty text.
    """
    if not 1 <= per_prompt <= MOST_IMAGES:
        bound = "at least 1" if per_prompt < 1 else f"at most {MOST_IMAGES}"
        raise ConfigError(f"num_images_per_prompt must be {bound}, found {per_prompt}.")
    if prompt is None:
        if embeds is None and semantics is None:
            raise ConfigError(
                "Expected a prompt or prompt_embeds, found neither; "
                'prompt="" generates without text.'
            )
        prompt = [""] * (embeds or semantics or 0)
    positive = _list(prompt)
    if len(positive) == 1:
        positive *= semantics or images or 1
    if not positive:
        raise ConfigError("Expected at least one prompt, found an empty list.")
    several = None if images == 1 else images
    given = {"prompt_embeds": embeds, "image_embeddings": semantics, "image": several}
    for name, rows in given.items():
        if rows is not None and rows != len(positive):
            raise ConfigError(
                f"{name} must have a row for each of the {len(positive)} prompts, found {rows}."
            )
    if negative_prompt is None or isinstance(negative_prompt, str):
        negative_prompt = [negative_prompt or ""] * len(positive)
    negative = _list(negative_prompt)
    if len(negative) != len(positive):
        raise ConfigError(
            f"negative_prompt must be one text, or a list of one for each of the {len(positive)} "
            f"prompts, found {len(negative)}."
        )
    return Prompts(
        positive=[text for text in positive for _ in range(per_prompt)],
        negative=[text for text in negative for _ in range(per_prompt)],
    )


def encoded(
    cascade: Cascade, prompts: Prompts, plan: GenerationPlan, given: Given, *, prior: bool
) -> Texts:
    """prior: whether Stage C runs."""
    negative_c = prior and plan.prior.guidance.active
    negative_b = plan.decoder.guidance.active
    embeds, negative_embeds = given.prompt_embeds, given.negative_prompt_embeds
    return Texts(
        c=_text_c(cascade, prompts.positive, embeds) if prior else None,
        negative_c=_text_c(cascade, prompts.negative, negative_embeds) if negative_c else None,
        b=cascade.encode(cascade.text_b, prompts.positive),
        negative_b=cascade.encode(cascade.text_b, prompts.negative) if negative_b else None,
    )


def truncation(encoder: TextEncoder, prompt: str, name: str = "prompt") -> str:
    """A sentence that quotes the part of the prompt which is not read; empty if all is."""
    if not (rest := encoder.truncated(prompt)):
        return ""
    start = prompt if len(prompt) <= 30 else f"{prompt[:29]}…"
    return (
        f"The {name} {start!r} is longer than the {encoder.length - 2} tokens that the text "
        f"encoder reads; its end is ignored: {printable(repr(rest), 300)}. Make it shorter."
    )


def warn_of_truncation(encoder: TextEncoder, prompts: Prompts, stacklevel: int) -> None:
    """stacklevel: 1 names the line that calls this function, 2 the one that called that, ..."""
    for name, texts in (("prompt", prompts.positive), ("negative prompt", prompts.negative)):
        for text in dict.fromkeys(texts):
            if sentence := truncation(encoder, text, name):
                warnings.warn(sentence, PromptWarning, stacklevel=stacklevel + 1)


def _text_c(cascade: Cascade, prompts: Sequence[str], embeds: Tensor | None) -> Tensor:
    """(B, L, D) for Stage C: encoded prompts, or the embeds repeated for the images of each."""
    encoder = cascade.text_c
    if embeds is None:
        return cascade.encode(encoder, prompts)
    length, width = encoder.length, encoder.width
    fits = embeds.shape[1:] == (length, width) and len(embeds) > 0
    if not fits or len(prompts) % len(embeds):
        raise ConfigError(
            "prompt_embeds and negative_prompt_embeds must be (prompts, "
            f"{length}, {width}), found {tuple(embeds.shape)}."
        )
    return embeds.repeat_interleave(len(prompts) // len(embeds), dim=0).to(cascade.device)


def _list(texts: str | Sequence[str]) -> list[str]:
    found = [texts] if isinstance(texts, str) else list(texts)
    for text in found:
        if not isinstance(text, str):
            raise ConfigError(f"A prompt must be text, found {type(text).__name__}.")
        try:
            text.encode()
        except UnicodeEncodeError:  # Python's stand-ins for bytes that it could not decode
            raise ConfigError(
                f"A prompt must be UTF-8 text, found other bytes: {printable(ascii(text), 100)}."
            ) from None
    return found
