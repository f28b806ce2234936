"""Rules that turn the figures of a diagnosis into a verdict: which stage limits, and what to do.

No stage can repair an earlier one, and a wrong object is worse than a blurred one. So the rules
check, in this order: whether Stage A is usable at all, where objects are lost, where detail is
lost, and whether generated semantics are distributed like true ones.
"""

from dataclasses import dataclass
from typing import Literal

from wuerstchen.evaluation.metrics import Z95, fraction_estimate

Stage = Literal["a", "b", "c", ""]
"""The limiting stage, or none."""

MIN_USABLE_PSNR = 22.0
"""dB of Stage A alone. Below, its error exceeds 8 % of the range: visible artefacts. Even small
models with four channels exceed it within minutes of training."""

GOOD_PSNR = 25.0
"""dB of Stage B + A from which detail is good enough, an error of 6 % of the range: semantics are
so small that Stage B has to invent fine detail, which never matches the original."""

HALF = 0.5
"""Of the error: a stage that causes more than all others limits the detail."""

MIN_LOST_OBJECTS = 0.05
"""Fraction of captions from which a loss is attributed to a stage: smaller ones are within the
error of the judge, which compares thumbnails."""

BLUR_RATIO = 0.9
"""Contrast of the middle band after Stage B over that after Stage A; below, a tenth is missing."""

MAX_OVER_CHANCE = 3.0
"""Semantics count as differently distributed from this multiple of the distance by chance. Below,
estimates from small samples are unreliable."""

WIDE, NARROW = 1.2, 0.8
"""Standard deviation of generated over true semantics; beyond, colours are harsh or washed out."""

OVERFIT_RATIO = 1.25
"""Held-out over training denoising error from which a stage has overfitted."""

UNTRAINED_RATIO = 0.9
"""Denoising error over that of the linear baseline; above, a stage has learned little."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Captions whose object a stage loses: recognised without the stage, and not with it."""

    fraction: float
    """Of all captions, minus those that the stage recovers."""
    significant: bool
    """Whether it exceeds chance, by the pairs that differ (McNemar 1947)."""


def paired_loss(before: list[bool], after: list[bool]) -> Loss:
    """Compare the same captions without and with a stage."""
    lost = sum(b and not a for b, a in zip(before, after, strict=True))
    recovered = sum(a and not b for b, a in zip(before, after, strict=True))
    fraction = (lost - recovered) / len(before)
    return Loss(fraction, lost - recovered > Z95 * (lost + recovered) ** 0.5)


@dataclass(frozen=True, slots=True)
class Findings:
    """The figures that the rules read."""

    psnr_a: float
    """dB of Stage A alone."""
    psnr_b: float
    """dB of Stage B + A from the true semantics."""
    error_fraction_a: float
    """Stage A's part of the mean squared error of Stage B + A."""
    contrast_a: float
    """Middle-band contrast that Stage A alone keeps."""
    contrast_b: float
    """The same after Stage B + A."""
    accuracy: tuple[float, float, float]
    """Fractions of captions whose object is recognised, by path."""
    lost: tuple[Loss, Loss, Loss]
    """By Stage A, B and C."""
    captions: int
    """Sample size of `accuracy` and `lost`."""
    over_chance: float
    """Distance of generated from true semantics, as a multiple of the distance by chance."""
    std_ratio: float
    """Standard deviation of generated over true semantics."""
    overfit_b: float
    """Denoising error of Stage B on held-out images over that on training images."""
    overfit_c: float
    training_b: float
    """Denoising error of Stage B on training images over the linear baseline."""
    training_c: float
    held_out_b: float
    """The same on held-out images."""
    held_out_c: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The limiting stage, and sentences for the user; the first names the stage."""

    stage: Stage
    sentences: tuple[str, ...]


def judge(found: Findings) -> Verdict:
    """Blame the stage of the first rule that applies, and add notes on the others."""
    stage, first = _limiting_stage(found)
    notes = [note for note in _notes(found) if note != first]
    return Verdict(stage, (first, *notes))


def _limiting_stage(found: Findings) -> tuple[Stage, str]:
    losses: dict[Stage, Loss] = dict(zip(("a", "b", "c"), found.lost, strict=True))
    worst = max(losses, key=lambda stage: losses[stage].fraction)
    loses_many = losses[worst].fraction >= MIN_LOST_OBJECTS
    if found.psnr_a < MIN_USABLE_PSNR:
        return "a", (
            f"Stage A limits: on its own it reaches only {found.psnr_a:.1f} dB, and "
            f"{MIN_USABLE_PSNR:.0f} dB is the minimum; train Stage A longer or wider, because the "
            "other stages cannot repair it."
        )
    if loses_many and losses[worst].significant:
        return worst, _object_loss(worst, found)
    objects = (
        f", and too few captions were tested to tell whether Stage {worst.upper()} loses objects"
        if loses_many
        else _objects_kept(found.captions)
    )
    if found.psnr_b < GOOD_PSNR:
        return _detail_loss(found, objects)
    if found.over_chance > MAX_OVER_CHANCE:
        return "c", _distribution_shift(found)
    return "", f"No stage stands out: detail is preserved{objects}."


def _objects_kept(captions: int) -> str:
    """Names the sample size where even zero losses would not rule out a relevant one."""
    text = ", and objects stay recognisable"
    if fraction_estimate(0, captions).high <= MIN_LOST_OBJECTS:
        return text
    shown = "1 caption shows" if captions == 1 else f"{captions} captions show"
    return f"{text} as far as {shown}"


def _object_loss(stage: Stage, found: Findings) -> str:
    a, b, c = (f"{fraction:.0%}" for fraction in found.accuracy)
    if stage == "a":
        return (
            f"Stage A limits: only {a} of the objects are recognised after Stage A alone; train "
            "it longer or wider, on images like these."
        )
    if stage == "b":
        return (
            f"Stage B limits: {b} of the objects are recognised from the true semantics, compared "
            f"with {a} after Stage A alone; train the compressor and Stage B longer, or give the "
            "semantics more channels."
        )
    return (
        f"Stage C limits: {c} of the objects are recognised from the caption, compared with {b} "
        "from the true semantics; train Stage C longer or wider, and check that captions describe "
        "what the images show."
    )


def _detail_loss(found: Findings, objects: str) -> tuple[Stage, str]:
    if found.error_fraction_a > HALF:
        return "a", (
            f"Stage A limits the detail: it causes {found.error_fraction_a:.0%} of the error of "
            f"Stage B + A ({found.psnr_b:.1f} dB){objects}; train Stage A longer or wider."
        )
    return "b", (
        f"Stage B limits the detail: it adds {1 - found.error_fraction_a:.0%} of the error and "
        f"lowers the PSNR from {found.psnr_a:.1f} to {found.psnr_b:.1f} dB{objects}; train the "
        "compressor and Stage B longer or wider, or give the semantics more channels."
    )


def _notes(found: Findings) -> list[str]:
    notes = []
    if found.contrast_b < BLUR_RATIO * found.contrast_a:
        notes.append(
            f"Stage B blurs: at wavelengths of 8 to 85 pixels its images keep "
            f"{found.contrast_b:.0%} of the contrast, Stage A alone {found.contrast_a:.0%}; more "
            "steps of Stage B (num_inference_steps) and its sampler dpm++2m sharpen images "
            "without training."
        )
    spread = f"{found.std_ratio:.2f} times the standard deviation of true ones"
    if found.std_ratio > WIDE:
        notes.append(
            f"Generated semantics have {spread}: lower the guidance of Stage C "
            "(prior_guidance_scale)."
        )
    if found.std_ratio < NARROW:
        notes.append(
            f"Generated semantics have only {spread}: raise the guidance of Stage C "
            "(prior_guidance_scale), or train it longer."
        )
    if found.over_chance > MAX_OVER_CHANCE:
        notes.append(_distribution_shift(found))
    for stage, overfit, training, held_out in (
        ("B", found.overfit_b, found.training_b, found.held_out_b),
        ("C", found.overfit_c, found.training_c, found.held_out_c),
    ):
        if training > UNTRAINED_RATIO:
            notes.append(
                f"Stage {stage} has learned little: its denoising error is {training:.0%} of that "
                "of a linear estimate from mean and variance; train it longer."
            )
        elif overfit >= OVERFIT_RATIO:
            useless = held_out > UNTRAINED_RATIO
            compared = ", hardly better than a linear estimate" if useless else ""
            notes.append(
                f"Stage {stage} overfits: its denoising error on held-out images is {overfit:.2f} "
                f"times that on training images{compared}; more images, more captions or a "
                "smaller network help more than longer training."
            )
    return notes


def _distribution_shift(found: Findings) -> str:
    return (
        "Stage C does not match the data: for held-out captions, its semantics are "
        f"{found.over_chance:.1f} times as far from the true ones as expected by chance; train it "
        "on more images, or longer if its held-out denoising error is still falling."
    )
