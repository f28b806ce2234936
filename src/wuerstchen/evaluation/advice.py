"""Which stage limits the image, and what to do: rules over figures, in plain sentences.

A later stage cannot mend an earlier one, and a wrong object is worse than a blurred right one. So
Stage A is asked first whether its images are usable at all, then it is asked where the objects
are lost, then where the detail is lost, and last whether drawn semantics are like true ones.
"""

from dataclasses import dataclass
from typing import Literal

from wuerstchen.evaluation.metrics import Z95, share_figure

Limit = Literal["a", "b", "c", ""]
"""The stage that limits, or none that stands out."""

USABLE_PSNR = 22.0
"""dB of Stage A alone. Below, its error is over 8 % of the range: flaws anyone sees. Even small
models of four channels reach more within their first minutes of training."""

FINE_PSNR = 25.0
"""dB of Stage B + A above which its detail is no complaint, an error of 6 % of the range: semantics
are so small that Stage B has to invent fine detail, and what it invents lies elsewhere."""

HALF = 0.5
"""Of the error: a stage that brings more than all others limits the detail."""

LOST_OBJECTS = 0.05
"""Least share of captions that a stage loses before it is blamed: fewer are matters of taste of
the judge, who compares thumbnails."""

BLURRED = 0.9
"""Contrast of middle waves after Stage B over that after Stage A, from which a tenth is missing."""

FAR = 3.0
"""Times the distance by chance from which drawn semantics count as another distribution. Below,
the estimates of small samples are no firm ground."""

WIDE, NARROW = 1.2, 0.8
"""Contrast of drawn semantics beyond which a fifth is too much or too little: colours are then
harsh or washed out."""

OVERFIT = 1.25
"""Denoising error on held-out images over that on training images from which a stage knows
its training images better than images."""

UNLEARNED = 0.9
"""Denoising error over that of a guess from mean and variance: above it little is learned."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Captions that a stage loses: followed before it joins, and not after."""

    share: float
    """Of all captions, less those that it wins back."""
    sure: bool
    """Whether that is more than chance, by the pairs that differ (McNemar 1947)."""


def lost(before: list[bool], after: list[bool]) -> Lost:
    """Compare the same captions without and with a stage."""
    gone = sum(b and not a for b, a in zip(before, after, strict=True))
    won = sum(a and not b for b, a in zip(before, after, strict=True))
    share = (gone - won) / len(before)
    return Lost(share, gone - won > Z95 * (gone + won) ** 0.5)


@dataclass(frozen=True, slots=True)
class Symptoms:
    """What the rules look at."""

    psnr_a: float
    """dB of Stage A alone."""
    psnr_b: float
    """dB of Stage B + A from the true semantics."""
    share_a: float
    """Of the mean squared error of Stage B + A, Stage A's."""
    contrast_a: float
    """Of middle waves that Stage A alone keeps."""
    contrast_b: float
    """The same after Stage B + A."""
    followed: tuple[float, float, float]
    """Shares of captions whose object is found in the images of the three ways."""
    lost: tuple[Lost, Lost, Lost]
    """By Stage A, B and C."""
    captions: int
    """How many were asked."""
    times_chance: float
    """Distance of drawn semantics to true ones, in distances by chance."""
    contrast: float
    """Spread of drawn semantics over that of true ones."""
    overfit_b: float
    """Denoising error of Stage B on held-out over that on training images."""
    overfit_c: float
    learned_b: float
    """Denoising error of Stage B on training images over that of a guess from mean and
    variance, both over all noise levels."""
    learned_c: float
    new_b: float
    """The same on held-out images."""
    new_c: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The stage that limits, and sentences for people: the first names it."""

    limits: Limit
    sentences: tuple[str, ...]


def advise(found: Symptoms) -> Verdict:
    """The first rule that holds names the stage; notes that hold as well follow."""
    limits, first = _limit(found)
    notes = [note for note in _notes(found) if note != first]
    return Verdict(limits, (first, *notes))


def _limit(found: Symptoms) -> tuple[Limit, str]:
    losses: dict[Limit, Lost] = dict(zip(("a", "b", "c"), found.lost, strict=True))
    worst = max(losses, key=lambda stage: losses[stage].share)
    many = losses[worst].share >= LOST_OBJECTS
    if found.psnr_a < USABLE_PSNR:
        return "a", (
            f"Stage A limits: alone it already leaves {found.psnr_a:.1f} dB, where "
            f"{USABLE_PSNR:.0f} are the least that is usable; train Stage A longer or wider, for "
            "the stages above cannot mend it."
        )
    if many and losses[worst].sure:
        return worst, _loses_objects(worst, found)
    objects = (
        f", and too few captions were drawn to tell whether Stage {worst.upper()} loses objects"
        if many
        else _objects_stay(found.captions)
    )
    if found.psnr_b < FINE_PSNR:
        return _loses_detail(found, objects)
    if found.times_chance > FAR:
        return "c", _far(found)
    return "", f"No stage stands out: detail survives{objects}."


def _objects_stay(captions: int) -> str:
    """As far as that is known: where so few were asked that even if none of them was lost, a stage
    may lose more than it is blamed for, the sentence says how many."""
    said = ", while objects of captions stay what they are"
    if share_figure(0, captions).high <= LOST_OBJECTS:
        return said
    shows = "1 caption shows" if captions == 1 else f"{captions} captions show"
    return f"{said} as far as {shows}"


def _loses_objects(stage: Limit, found: Symptoms) -> str:
    a, b, c = (f"{share:.0%}" for share in found.followed)
    if stage == "a":
        return (
            f"Stage A limits: only {a} of the objects are still recognised after it alone; train "
            "Stage A longer or wider, on images like these."
        )
    if stage == "b":
        return (
            f"Stage B limits: from the true semantics {b} of the objects are recognised, against "
            f"{a} after Stage A alone; train the compressor and Stage B longer, or give the "
            "semantics more channels."
        )
    return (
        f"Stage C limits: {c} of captions are followed from text, against {b} from the true "
        "semantics; train Stage C longer or wider, and see that captions say what the "
        "images show."
    )


def _loses_detail(found: Symptoms, objects: str) -> tuple[Limit, str]:
    if found.share_a > HALF:
        return "a", (
            f"Stage A limits the detail: it brings {found.share_a:.0%} of the error of Stage B + A "
            f"({found.psnr_b:.1f} dB){objects}; train Stage A longer or wider."
        )
    return "b", (
        f"Stage B limits the detail: it adds {1 - found.share_a:.0%} of the error, and takes the "
        f"image from {found.psnr_a:.1f} to {found.psnr_b:.1f} dB{objects}; train the compressor "
        "and Stage B longer or wider, or give the semantics more channels."
    )


def _notes(found: Symptoms) -> list[str]:
    notes = []
    if found.contrast_b < BLURRED * found.contrast_a:
        notes.append(
            f"Stage B blurs: of waves of 8 to 85 pixels its images keep {found.contrast_b:.0%} "
            f"of the contrast, Stage A alone {found.contrast_a:.0%}; more steps of Stage B "
            "(num_inference_steps) and its sampler dpm++2m sharpen without training."
        )
    if found.contrast > WIDE:
        notes.append(
            f"Drawn semantics have {found.contrast:.2f} times the spread of true ones: lower the "
            "guidance of Stage C (prior_guidance_scale)."
        )
    if found.contrast < NARROW:
        notes.append(
            f"Drawn semantics have only {found.contrast:.2f} times the spread of true ones: raise "
            "the guidance of Stage C (prior_guidance_scale), or train it longer."
        )
    if found.times_chance > FAR:
        notes.append(_far(found))
    for stage, overfit, learned, new in (
        ("B", found.overfit_b, found.learned_b, found.new_b),
        ("C", found.overfit_c, found.learned_c, found.new_c),
    ):
        if learned > UNLEARNED:
            notes.append(
                f"Stage {stage} has learned little: its denoising error is {learned:.0%} of that "
                "of a guess from mean and variance alone; train it longer."
            )
        elif overfit >= OVERFIT:
            told = ", hardly better than a guess" if new > UNLEARNED else ""
            notes.append(
                f"Stage {stage} knows its training images by heart: its denoising error is "
                f"{overfit:.2f} times as large on held-out ones{told}; more images, more "
                "captions or a smaller network help it more than longer training."
            )
    return notes


def _far(found: Symptoms) -> str:
    return (
        "Stage C strays: for captions that it has not learned from, its semantics lie "
        f"{found.times_chance:.1f} times as far from the true ones as chance would have it; train "
        "it on more images, or longer where its held-out denoising error still falls."
    )
