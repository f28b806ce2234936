"""Measure a sampling setting: generate images with it and compare them with real ones."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from benchmarks.studies.frechet import features, frechet
from benchmarks.studies.quality_rows import Row
from wuerstchen import Pipeline, noise, weights
from wuerstchen.config import DataConfig
from wuerstchen.data import Pairs, open_pairs
from wuerstchen.evaluation.metrics import fraction_estimate
from wuerstchen.evaluation.retrieval import choose_queries, image_thumbnails, retrieve
from wuerstchen.inference.generation_plan import plan_generation
from wuerstchen.inference.sampling import SamplingPlan
from wuerstchen.models.compressor import Compressor, shrink
from wuerstchen.psnr import psnr

BATCH = 20
DETERMINISTIC = ("ddim", "dpm++2m", "heun")
STOCHASTIC = ("ddpm", "dpm++2m-sde", "euler-ancestral")


@dataclass(frozen=True)
class Setting:
    """Sampling settings of a stage."""

    stage: str
    name: str
    spacing: str
    sampling: SamplingPlan
    """Of Stage C, or of Stage B where the stage is B."""
    decoder: SamplingPlan | None = None
    """Of Stage B after Stage C; None: the model's own."""


class Study:
    """The model, the images and what all settings share."""

    def __init__(self, data: str, images: int) -> None:
        self.pipeline = Pipeline.from_pretrained()
        self.count = images
        self.own = plan_generation(self.pipeline.info)
        config = DataConfig(path=data, balance_by="name", size=self.pipeline.info.size)
        self.train, self.test, _ = open_pairs(config)
        self.queries = choose_queries(self.train, images, 0)
        self.fine: dict[str, list[Tensor]] = {}

    @cached_property
    def compressor(self) -> Compressor:
        return weights.compressor.load(weights.resolve().source).eval()

    @cached_property
    def references(self) -> Tensor:
        return image_thumbnails(self.train)

    @cached_property
    def real(self) -> Tensor:
        return features(self.compressor, batches(self.test, len(self.test)))

    @cached_property
    def real_edges(self) -> float:
        return edges(torch.cat(list(batches(self.test, len(self.test)))))

    @torch.inference_mode()
    def semantics(
        self, sampling: SamplingPlan, captions: Sequence[str], seed: int
    ) -> tuple[Tensor, Tensor]:
        """Semantics from Stage C, with the same noise for all settings, and the encoded text."""
        pipeline = self.pipeline
        text = pipeline.cascade.encode(pipeline.cascade.text_c, captions)
        none = pipeline.cascade.encode(pipeline.cascade.text_c, [""] * len(captions))
        size = (pipeline.info.size,) * 2
        generated = pipeline.cascade.semantics_from_text(
            text, noise.seeded(seed, len(captions)), size, sampling, negative=none
        )
        return generated, text

    @torch.inference_mode()
    def image(
        self, semantics: Tensor, captions: Sequence[str], seed: int, sampling: SamplingPlan
    ) -> Tensor:
        pipeline = self.pipeline
        text = pipeline.cascade.encode(pipeline.cascade.text_b, captions)
        streams = noise.seeded(10_000 + seed, len(captions))
        return pipeline.cascade.image_from_latents(
            pipeline.cascade.latents_from_semantics(semantics, text, streams, sampling)
        )


def batches(pairs: Pairs, count: int) -> Iterator[Tensor]:
    for start in range(0, count, BATCH):
        rows = [pairs.image(i) for i in range(start, min(start + BATCH, count))]
        yield torch.stack(rows) / 255


def edges(images: Tensor) -> float:
    """Mean absolute difference between neighbouring pixels."""
    return float((images[..., 1:] - images[..., :-1]).abs().mean())


def measure(study: Study, setting: Setting) -> Row:
    start = time.perf_counter()
    judge = _stage_b if setting.stage == "B" else _stage_c
    images, distance, nearest, first_five, decibels = judge(study, setting)
    seconds = time.perf_counter() - start
    sampling = setting.sampling
    generated = features(study.compressor, images.split(BATCH))
    distance_to_real, std = frechet(generated, study.real)
    guided = [sampling.guidance.scale_at(t) is not None for t in sampling.times[:-1]]
    relative_cost = (1 + sum(guided) / len(guided)) / 2 if sampling.guidance.active else 1
    return Row(
        stage=setting.stage,
        name=setting.name,
        sampler=sampling.sampler,
        spacing=setting.spacing,
        evaluations=sampling.evaluations,
        decoder=setting.decoder.evaluations if setting.decoder else None,
        cost=sampling.evaluations * relative_cost,
        images=len(images),
        distance=distance,
        frechet=distance_to_real,
        frechet_spread=std,
        nearest=nearest,
        first_five=first_five,
        psnr=decibels,
        edges=edges(images) / study.real_edges,
        seconds=seconds,
    )


Judged = tuple[Tensor, float | None, float | None, float | None, float | None]


def _stage_c(study: Study, setting: Setting) -> Judged:
    generated: list[Tensor] = []
    images: list[Tensor] = []

    def generate(captions: Sequence[str], seed: int) -> Tensor:
        semantics, _ = study.semantics(setting.sampling, captions, seed)
        generated.append(semantics)
        decoder = setting.decoder or study.own.decoder
        images.append(study.image(semantics, captions, seed, decoder))
        return images[-1]

    answers = []
    for start in range(0, len(study.queries), BATCH):
        part = study.queries[start : start + BATCH]
        answers += retrieve(part, study.train, study.references, generate, start)
    ranks = [found.rank for found in answers]
    nearest = fraction_estimate(sum(rank == 1 for rank in ranks), len(ranks)).value
    five = fraction_estimate(sum(rank <= 5 for rank in ranks), len(ranks)).value
    return torch.cat(images), _distance(study, setting, torch.cat(generated)), nearest, five, None


def _stage_b(study: Study, setting: Setting) -> Judged:
    generated: list[Tensor] = []
    images: list[Tensor] = []
    decibels: list[Tensor] = []
    for index, real in enumerate(batches(study.test, study.count)):
        start = index * BATCH
        captions = [study.test[start + k].captions[0] for k in range(len(real))]
        with torch.inference_mode():
            semantics = study.compressor(shrink(real))
            pipeline = study.pipeline
            latents = pipeline.cascade.latents_from_semantics(
                semantics,
                pipeline.cascade.encode(pipeline.cascade.text_b, captions),
                noise.seeded(start, len(real)),
                setting.sampling,
            )
            images.append(pipeline.cascade.image_from_latents(latents))
        generated.append(latents)
        decibels.append(psnr(images[-1], real))
    distance = _distance(study, setting, torch.cat(generated))
    return torch.cat(images), distance, None, None, float(torch.cat(decibels).mean())


def _distance(study: Study, setting: Setting, found: Tensor) -> float | None:
    """Distance to the reference solution, the first deterministic setting of its stage."""
    if setting.sampling.sampler not in DETERMINISTIC or setting.stage == "whole":
        return None
    if setting.stage not in study.fine:
        study.fine[setting.stage] = [found]
    return float((found - study.fine[setting.stage][0]).square().mean().sqrt())
