"""Filter images by size, captions and scores."""

from collections.abc import Mapping, Sequence
from math import isfinite

from wuerstchen.config import FilterConfig
from wuerstchen.data.prepared import SCORES

_SCORE_FIELDS: Mapping[str, Sequence[str]] = {
    "aesthetic": ("aesthetic", "AESTHETIC_SCORE", "aesthetic_score"),
    "pwatermark": ("pwatermark",),
    "punsafe": ("punsafe",),
    "similarity": ("similarity",),
}
"""Metadata fields of each score; the first one with a number is used."""


def scores_of(fields: Mapping[str, object]) -> dict[str, float | None]:
    """The scores among metadata fields; None for one without a finite number."""
    return {name: _number(fields, _SCORE_FIELDS[name]) for name in SCORES}


def captions_problem(captions: Sequence[str], bounds: FilterConfig) -> str | None:
    """Why an image with these captions is dropped."""
    usable = usable_captions(captions, bounds)
    if not usable:
        return f"caption over {bounds.max_caption} characters"
    if bounds.min_caption is not None and max(map(len, usable)) < bounds.min_caption:
        return f"caption under {bounds.min_caption} characters"
    return None


def usable_captions(captions: Sequence[str], bounds: FilterConfig) -> list[str]:
    """Captions that are not too long."""
    limit = bounds.max_caption
    return [text for text in captions if limit is None or len(text) <= limit]


def scores_problem(scores: Mapping[str, float | None], bounds: FilterConfig) -> str | None:
    """Why an image with these scores is dropped: the first score that is out of bounds."""
    for name, lowest, highest in (
        ("aesthetic", bounds.min_aesthetic, None),
        ("pwatermark", None, bounds.max_watermark),
        ("punsafe", None, bounds.max_unsafe),
        ("similarity", bounds.min_similarity, None),
    ):
        if lowest is None and highest is None:
            continue
        value = scores[name]
        if value is None:
            if bounds.missing_score == "drop":
                return f"without {name}"
        elif lowest is not None and value < lowest:
            return f"{name} under {lowest:g}"
        elif highest is not None and value > highest:
            return f"{name} over {highest:g}"
    return None


def size_problem(width: int, height: int, bounds: FilterConfig) -> str | None:
    """Why an image of this size in pixels is dropped."""
    short, long = sorted((width, height))
    if bounds.min_side is not None and short < bounds.min_side:
        return f"shorter side under {bounds.min_side} pixels"
    if bounds.max_side is not None and long > bounds.max_side:
        return f"longer side over {bounds.max_side} pixels"
    if bounds.max_aspect is not None and long > bounds.max_aspect * short:
        return f"aspect ratio over {bounds.max_aspect:g}"
    return None


def _number(fields: Mapping[str, object], names: Sequence[str]) -> float | None:
    for name in names:
        try:
            value = float(str(fields[name]))
        except (KeyError, ValueError):
            continue
        if isfinite(value):
            return value
    return None
