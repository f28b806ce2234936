"""Diagnose which stage limits the images of a model: A alone, B + A, or all three."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from wuerstchen import weights
from wuerstchen.config import DataConfig
from wuerstchen.data import Pairs
from wuerstchen.data.open import empty_split_advice
from wuerstchen.errors import DataError
from wuerstchen.evaluation import inputs, metrics
from wuerstchen.evaluation.denoising import TIMES, linear_baseline
from wuerstchen.evaluation.diagnosis import DenoisingCurves, Detail, Diagnosis, Recognition
from wuerstchen.evaluation.distribution_distance import (
    SemanticsDistance,
    channel_stats,
    compare_semantics,
)
from wuerstchen.evaluation.findings import Findings, judge, paired_loss
from wuerstchen.evaluation.reconstruction import (
    PATHS,
    Example,
    ModelParts,
    PathMeasurements,
    concatenate,
    variances,
)
from wuerstchen.evaluation.retrieval import choose_queries, image_thumbnails
from wuerstchen.geometry import SEMANTICS_SCALE
from wuerstchen.inference.generation_plan import plan_generation
from wuerstchen.noise import check_seed
from wuerstchen.psnr import psnr_from_mse

IMAGES = 100
"""Per split: fractions of captions are then known to ten percentage points or better."""

EXAMPLES = 8
"""Images in the grid and on the page."""

MAX_REFERENCES = 5000
"""Training images that are searched for the nearest: reading more takes hours."""

MIN_POWER = 1e-12
"""Smaller contrasts and errors count as zero."""

Measured = tuple[PathMeasurements, list[Example]]


def diagnose(
    folder: Path,
    data: DataConfig,
    *,
    images: int = IMAGES,
    seed: int = 0,
    progress: inputs.Progress = inputs.no_progress,
) -> Diagnosis:
    """Measure where the model in `folder` loses what its images should show.

    data    `size` and `buckets` are ignored: images are squares of the model's own size; the
            held-out split is that of training only with its `test_fraction` and `balance_by`
    images  held-out images, evenly spaced, and as many training captions, one per group; at
            least 2
    seed    chooses the captions and all noise: the same seed gives the same figures

    Raises ModelFolderError for a model without a compressor (published ones have none), DataError
    for data without two held-out images or a training image.
    """
    check_seed(seed, max(images, 1))
    pipeline = inputs.open_pipeline(folder)
    compressor = weights.compressor.load(folder).to(pipeline.device, pipeline.dtype)
    train, test = inputs.open_squares(data, pipeline)
    if not len(test):
        raise DataError(
            f"{data.path}: expected test images, found none; {empty_split_advice(data)}."
        )
    if not len(train):
        raise DataError(
            f"{data.path}: expected training images as well, found only test images; name the "
            "data that the model was trained on."
        )
    indices = inputs.evenly_spaced(len(test), images)
    if len(indices) < 2:
        raise DataError(
            f"{data.path}: expected at least two held-out images, found {len(test)} and was asked "
            f"for {images}: the distribution of one image cannot be compared. Raise --images, or "
            "data.test_fraction as in the training."
        )
    model = ModelParts(pipeline.cascade, compressor, plan_generation(pipeline.info))
    held_out, examples = _measure(model, test, indices, seed, "held-out images", progress)
    queries = [query.index for query in choose_queries(train, images, seed)]
    training, _ = _measure(model, train, queries, seed, "training captions", progress)
    detail = _detail(held_out)
    denoising_b, denoising_c = _denoising(held_out, training)
    recognition = _recognition(recognised(training.thumbnails, train, queries))
    true, generated = held_out.true_semantics, held_out.generated_semantics
    distance = compare_semantics(true, generated, seed)
    findings = _findings(detail, recognition, distance, denoising_b, denoising_c)
    return Diagnosis(
        settings={
            "model": pipeline.info.name,
            "data": data.path,
            "balance_by": data.balance_by,
            "train_images": len(train),
            "test_images": len(test),
            "size": pipeline.info.size,
            "seed": seed,
        },
        detail=detail,
        recognition=recognition,
        semantics=distance,
        true=channel_stats(true),
        generated=channel_stats(generated),
        times=TIMES,
        denoising_b=denoising_b,
        denoising_c=denoising_c,
        verdict=judge(findings),
        examples=examples,
    )


def recognised(made: Tensor, train: Pairs, queries: Sequence[int]) -> list[list[bool]]:
    """For each path, whether the nearest training image shows the object of each query.

    made     (B, paths, 3, 32, 32) thumbnails of the reconstructions
    queries  (B,) indices of the training images whose captions were used
    """
    indices = sorted({*queries, *inputs.evenly_spaced(len(train), MAX_REFERENCES)})
    references = image_thumbnails(train, indices)
    groups = [train[i].group for i in queries]
    return [
        [
            train[indices[order[0]]].group == group
            for order, group in zip(metrics.nearest(path, references).tolist(), groups, strict=True)
        ]
        for path in made.unbind(dim=1)
    ]


def _measure(
    model: ModelParts,
    pairs: Pairs,
    indices: Sequence[int],
    seed: int,
    task: str,
    report: inputs.Progress,
) -> Measured:
    measured: list[PathMeasurements] = []
    examples: list[Example] = []
    report(task, 0, len(indices))
    for start, stop in inputs.batches(len(indices), model.plan.size[0]):
        more = max(0, EXAMPLES - start)
        batch, kept = model.measure_paths(pairs, indices[start:stop], seed + start, more)
        measured.append(batch)
        examples += kept
        report(task, stop, len(indices))
    return concatenate(measured), examples


def _recognition(hits: Sequence[list[bool]]) -> Recognition:
    a, b, c = hits
    accuracy_a, accuracy_b, accuracy_c = (metrics.fraction_estimate(sum(x), len(x)) for x in hits)
    return Recognition(
        accuracy=(accuracy_a, accuracy_b, accuracy_c),
        lost=(paired_loss([True] * len(a), a), paired_loss(a, b), paired_loss(b, c)),
    )


def _findings(
    detail: Detail,
    recognition: Recognition,
    distance: SemanticsDistance,
    denoising_b: DenoisingCurves,
    denoising_c: DenoisingCurves,
) -> Findings:
    accuracy_a, accuracy_b, accuracy_c = recognition.accuracy
    return Findings(
        psnr_a=detail.psnr[0].value,
        psnr_b=detail.psnr[1].value,
        error_fraction_a=detail.error_fractions[0],
        contrast_a=detail.contrasts["stage_a"]["middle"],
        contrast_b=detail.contrasts["stage_b"]["middle"],
        accuracy=(accuracy_a.value, accuracy_b.value, accuracy_c.value),
        lost=recognition.lost,
        captions=accuracy_c.n,
        over_chance=distance.over_chance,
        std_ratio=distance.std_ratio,
        overfit_b=denoising_b.overfit,
        overfit_c=denoising_c.overfit,
        training_b=denoising_b.training_over_baseline,
        training_c=denoising_c.training_over_baseline,
        held_out_b=denoising_b.held_out_over_baseline,
        held_out_c=denoising_c.held_out_over_baseline,
    )


def _detail(found: PathMeasurements) -> Detail:
    decibels = psnr_from_mse(found.errors.sum(dim=2))  # (B, 2)
    errors = found.errors.mean(dim=0)  # (2, 3)
    contrasts = found.contrasts.mean(dim=0)  # (4, 3)
    kept = contrasts[1:] / contrasts[0].clamp_min(MIN_POWER)  # (3, 3)
    fraction = _fraction(errors[0].sum(), errors[1].sum())
    variance = variances(found.latent_moments).mean().clamp_min(MIN_POWER)
    return Detail(
        psnr=(metrics.mean_estimate(decibels[:, 0]), metrics.mean_estimate(decibels[:, 1])),
        errors=_by_path_and_band(errors),
        error_fractions=(fraction, 1 - fraction),
        band_fractions={band: _fraction(*errors[:, k]) for k, band in enumerate(metrics.BANDS)},
        contrasts=_by_path_and_band(kept),
        latent_error=float(found.latent_errors.mean() / variance),
    )


def _by_path_and_band(values: Tensor) -> dict[str, dict[str, float]]:
    """(paths, 3) values by the names of path and band."""
    return {
        path: dict(zip(metrics.BANDS, row.tolist(), strict=True))
        for path, row in zip(PATHS, values, strict=False)
    }


def _denoising(
    held_out: PathMeasurements, training: PathMeasurements
) -> tuple[DenoisingCurves, DenoisingCurves]:
    std = torch.tensor(channel_stats(held_out.true_semantics).std)
    return (
        DenoisingCurves(
            held_out.denoising_b.mean(dim=0).tolist(),
            training.denoising_b.mean(dim=0).tolist(),
            linear_baseline(variances(held_out.latent_moments)),
        ),
        DenoisingCurves(
            held_out.denoising_c.mean(dim=0).tolist(),
            training.denoising_c.mean(dim=0).tolist(),
            linear_baseline(std.square() / SEMANTICS_SCALE**2),
        ),
    )


def _fraction(part: Tensor, whole: Tensor) -> float:
    """1 where both are zero: then no other stage causes an error either."""
    return float(part / whole) if whole > MIN_POWER else 1.0
