"""Which images of a source are kept: bounds on sides, captions and scores."""

from collections.abc import Mapping, Sequence
from math import isfinite

from wuerstchen.config import FilterConfig
from wuerstchen.data.prepared import SCORES

FIELDS: Mapping[str, Sequence[str]] = {
    "aesthetic": ("aesthetic", "AESTHETIC_SCORE", "aesthetic_score"),
    "pwatermark": ("pwatermark",),
    "punsafe": ("punsafe",),
    "similarity": ("similarity",),
}
"""Scores, and the side fields that hold them: the first that is there counts."""

Bounds = tuple[float | None, float | None]
"""Least and most."""


def scores_of(fields: Mapping[str, object]) -> dict[str, float | None]:
    """The scores among side fields; None where there is no finite number."""
    return {name: _number(fields, FIELDS[name]) for name in SCORES}


def trouble_with_captions(captions: Sequence[str], bounds: FilterConfig) -> str | None:
    """Why no caption can be used."""
    usable = usable_captions(captions, bounds)
    if not usable:
        return f"caption over {bounds.max_caption} characters"
    if bounds.min_caption is not None and max(map(len, usable)) < bounds.min_caption:
        return f"caption under {bounds.min_caption} characters"
    return None


def usable_captions(captions: Sequence[str], bounds: FilterConfig) -> list[str]:
    """Captions that are not too long."""
    return [text for text in captions if not _outside(len(text), (None, bounds.max_caption))]


def trouble_with_scores(scores: Mapping[str, float | None], bounds: FilterConfig) -> str | None:
    """The first score that is out of bounds, in words."""
    for name, (least, most) in _score_bounds(bounds).items():
        if least is None and most is None:
            continue
        value = scores[name]
        if value is None:
            if bounds.missing_score == "drop":
                return f"without {name}"
        elif _outside(value, (least, most)):
            return f"{name} under {least:g}" if least is not None else f"{name} over {most:g}"
    return None


def trouble_with_size(width: int, height: int, bounds: FilterConfig) -> str | None:
    """Why an image of so many pixels is not kept."""
    short, long = sorted((width, height))
    if bounds.min_side is not None and short < bounds.min_side:
        return f"shorter side under {bounds.min_side} pixels"
    if bounds.max_side is not None and long > bounds.max_side:
        return f"longer side over {bounds.max_side} pixels"
    if bounds.max_aspect is not None and long > bounds.max_aspect * short:
        return f"aspect ratio over {bounds.max_aspect:g}"
    return None


def _score_bounds(bounds: FilterConfig) -> dict[str, Bounds]:
    return {
        "aesthetic": (bounds.min_aesthetic, None),
        "pwatermark": (None, bounds.max_watermark),
        "punsafe": (None, bounds.max_unsafe),
        "similarity": (bounds.min_similarity, None),
    }


def _outside(value: float, bounds: Bounds) -> bool:
    least, most = bounds
    return (least is not None and value < least) or (most is not None and value > most)


def _number(fields: Mapping[str, object], names: Sequence[str]) -> float | None:
    for name in names:
        try:
            value = float(str(fields[name]))
        except (KeyError, ValueError):
            continue
        if isfinite(value):
            return value
    return None
