"""Which stage limits the images of a model: A alone, B + A from true semantics, all three."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from wuerstchen import weights
from wuerstchen.config import DataConfig
from wuerstchen.data import Pairs
from wuerstchen.data.open import empty_split_advice
from wuerstchen.decibels import decibels
from wuerstchen.errors import DataError
from wuerstchen.evaluation.advice import Symptoms, advise, lost
from wuerstchen.evaluation.batching import Progress, batches, evenly, silent
from wuerstchen.evaluation.chain import WAYS, Chain, Passed, joined, variances
from wuerstchen.evaluation.denoising import TIMES, guess_errors
from wuerstchen.evaluation.diagnosis import Denoising, Detail, Diagnosis, Following
from wuerstchen.evaluation.distances import Gap, gap, moments
from wuerstchen.evaluation.evaluate import open_pipeline, open_squares
from wuerstchen.evaluation.frequency_bands import BANDS
from wuerstchen.evaluation.metrics import mean_figure, nearest, share_figure, thumbnails
from wuerstchen.evaluation.nearest_neighbours import choose_questions
from wuerstchen.geometry import SEMANTICS_SCALE
from wuerstchen.inference.generation_plan import plan

IMAGES = 100
"""Of either split: a share of captions is then known to ten percent points or better."""

SHOWN = 8
"""Rows of the image."""

MOST_REFERENCES = 5000
"""Training images among which the nearest is sought: reading more takes hours."""

LEAST_POWER = 1e-12
"""Contrasts and errors below are none."""


def diagnose(
    folder: Path,
    data: DataConfig,
    *,
    images: int = IMAGES,
    seed: int = 0,
    progress: Progress = silent,
) -> Diagnosis:
    """Measure where the model in `folder` loses what its images should show.

    data      its `size` and `buckets` are not used: images are squares of the model's own size;
              held out are those of the training only with its `test_fraction` and `balance_by`
    images  held-out images, spread evenly, and as many training captions, one per group
    seed      chooses the captions and all noise: the same seed gives the same figures

    Raises ModelFolderError for a model without a compressor (published ones have none), DataError
    for data without a test or a training image.
    """
    pipeline = open_pipeline(folder)
    compressor = weights.compressor.load(folder).to(pipeline.device, pipeline.dtype).eval()
    train, test = open_squares(data, pipeline)
    if not len(test):
        raise DataError(
            f"{data.path}: expected test images, found none; {empty_split_advice(data)}."
        )
    if not len(train):
        raise DataError(
            f"{data.path}: expected training images too, found only test images; name the "
            "data that the model was trained on."
        )
    chain = Chain(pipeline, compressor, plan(pipeline.info))
    held_out = _pass(chain, test, evenly(len(test), images), seed, "held-out images", progress)
    speakers = [question.index for question in choose_questions(train, images, seed)]
    trained = _pass(chain, train, speakers, seed, "training captions", progress)
    detail, denoising = _detail(held_out), _denoising(held_out, trained)
    following = _following(followed(trained.small, train, speakers))
    between = gap(held_out.true, held_out.drawn, seed)
    return Diagnosis(
        settings={
            "model": pipeline.info.name,
            "data": data.path,
            "balance_by": data.balance_by,
            "train_images": len(train),
            "test_images": len(test),
            "size": pipeline.default_size,
            "seed": seed,
        },
        detail=detail,
        following=following,
        semantics=between,
        true=moments(held_out.true),
        drawn=moments(held_out.drawn),
        denoising=denoising,
        verdict=advise(_symptoms(detail, following, between, denoising)),
        shown=held_out.shown,
    )


def followed(small: Tensor, train: Pairs, speakers: Sequence[int]) -> list[list[bool]]:
    """For each way, whether the nearest training image shows the object of each speaker.

    small  (B, ways, 3, 32, 32) thumbnails of what the ways made
    """
    among = sorted({*speakers, *evenly(len(train), MOST_REFERENCES)})
    references = torch.cat([thumbnails(train.image(i)[None] / 255) for i in among])
    wanted = [train[i].group for i in speakers]
    return [
        [
            train[among[order[0]]].group == group
            for order, group in zip(nearest(way, references).tolist(), wanted, strict=True)
        ]
        for way in small.unbind(dim=1)
    ]


def _pass(
    chain: Chain, pairs: Pairs, chosen: Sequence[int], seed: int, what: str, progress: Progress
) -> Passed:
    parts: list[Passed] = []
    progress(what, 0, len(chosen))
    for start, stop in batches(len(chosen), chain.pipeline.default_size):
        part = chosen[start:stop]
        parts.append(chain.send(pairs, part, seed + start, max(0, SHOWN - start)))
        progress(what, stop, len(chosen))
    return joined(parts)


def _following(hits: Sequence[list[bool]]) -> Following:
    a, b, c = hits
    figure_a, figure_b, figure_c = (share_figure(sum(way), len(way)) for way in hits)
    return Following(
        ways=(figure_a, figure_b, figure_c),
        lost=(lost([True] * len(a), a), lost(a, b), lost(b, c)),
    )


def _symptoms(detail: Detail, following: Following, between: Gap, denoising: Denoising) -> Symptoms:
    after_a, after_b, after_c = (way.value for way in following.ways)
    return Symptoms(
        psnr_a=detail.psnr[0].value,
        psnr_b=detail.psnr[1].value,
        share_a=detail.shares[0],
        contrast_a=detail.contrasts["stage_a"]["middle"],
        contrast_b=detail.contrasts["stage_b"]["middle"],
        followed=(after_a, after_b, after_c),
        lost=following.lost,
        captions=following.ways[2].n,
        times_chance=between.times_chance,
        contrast=between.contrast,
        overfit_b=denoising.overfit_b,
        overfit_c=denoising.overfit_c,
        learned_b=denoising.learned_b,
        learned_c=denoising.learned_c,
        new_b=denoising.new_b,
        new_c=denoising.new_c,
    )


def _detail(found: Passed) -> Detail:
    whole = found.errors.sum(dim=2)  # (B, 2)
    ratios = decibels(whole)  # (B, 2)
    mean = found.errors.mean(dim=0)  # (2, 3)
    contrasts = found.contrasts.mean(dim=0)  # (4, 3)
    kept = contrasts[1:] / contrasts[0].clamp_min(LEAST_POWER)  # (3, 3)
    share = _share(mean[0].sum(), mean[1].sum())
    variance = variances(found.latents).mean().clamp_min(LEAST_POWER)
    return Detail(
        psnr=(mean_figure(ratios[:, 0]), mean_figure(ratios[:, 1])),
        errors={
            way: dict(zip(BANDS, row.tolist(), strict=True))
            for way, row in zip(WAYS[:2], mean, strict=True)
        },
        shares=(share, 1 - share),
        band_shares={band: _share(*mean[:, k]) for k, band in enumerate(BANDS)},
        contrasts={
            way: dict(zip(BANDS, row.tolist(), strict=True))
            for way, row in zip(WAYS, kept, strict=True)
        },
        latent_error=float(found.latent_errors.mean() / variance),
    )


def _denoising(held_out: Passed, trained: Passed) -> Denoising:
    scaled = torch.tensor(moments(held_out.true).spread).square() / SEMANTICS_SCALE**2
    return Denoising(
        times=TIMES,
        held_out_b=held_out.noise_b.mean(dim=0).tolist(),
        trained_b=trained.noise_b.mean(dim=0).tolist(),
        guess_b=guess_errors(variances(held_out.latents)),
        held_out_c=held_out.noise_c.mean(dim=0).tolist(),
        trained_c=trained.noise_c.mean(dim=0).tolist(),
        guess_c=guess_errors(scaled),
    )


def _share(part: Tensor, whole: Tensor) -> float:
    """Nothing of nothing is all of it: an error that is not there is nobody else's."""
    return float(part / whole) if whole > LEAST_POWER else 1.0
