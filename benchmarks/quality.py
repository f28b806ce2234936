"""Quality against network evaluations, on the bundled model: `python -m benchmarks.quality DATA`.

DATA is a folder or tar of captioned pictures, split as in the model's training. Stage C is judged
by the pictures that it and the model's own Stages B and A draw for training captions; Stage B by
what it draws from the true semantics of test pictures. Each row is written as soon as it is
measured, and a row that is there is not measured again.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from benchmarks.frechet import features, frechet
from benchmarks.records import ROOT
from wuerstchen import Pipeline, noise, weights
from wuerstchen.arguments import plan
from wuerstchen.aside import write_file
from wuerstchen.config import DataConfig
from wuerstchen.data import Pairs, open_pairs
from wuerstchen.diffusion import TIMES, Guidance, published_times, uniform_times
from wuerstchen.evaluation.metrics import psnr, share_figure
from wuerstchen.evaluation.neighbours import answer, choose_questions, small_pictures
from wuerstchen.models.compressor import Compressor, shrink
from wuerstchen.steps import Walk

OUT = ROOT / "docs/benchmarks/quality.json"
BATCH = 20
FINE = 500
"""Steps of the solution that others are compared with."""
DETERMINISTIC = ("ddim", "dpm++2m", "heun")
STOCHASTIC = ("ddpm", "dpm++2m-sde", "euler-ancestral")


class Row(BaseModel):
    """One setting of a stage and what came of it."""

    model_config = ConfigDict(frozen=True)
    stage: str
    """C, B, or whole."""
    name: str
    sampler: str
    spacing: str
    evaluations: int
    """Of the network; those without guidance count like those with it."""
    cost: float
    """The same in guided evaluations: one without guidance costs half of one."""
    pictures: int
    distance: float | None
    """Root mean square to the solution of 500 steps from the same noise; None where noise is new
    in every step, so that no two numbers of steps lead to the same picture."""
    frechet: float
    """Distance of features to the test pictures."""
    frechet_spread: float
    """Standard deviation of it over resampled pictures."""
    nearest: float | None
    """Share of captions whose nearest training picture shows what was asked for."""
    first_five: float | None
    psnr: float | None
    """dB to the picture whose semantics were given."""
    edges: float
    """Mean absolute difference between neighbouring pixels, as a share of the test pictures'."""
    seconds: float


@dataclass(frozen=True)
class Setting:
    """One way for a stage."""

    stage: str
    name: str
    spacing: str
    walk: Walk
    """Of Stage C, or of Stage B where the stage is B."""
    decoder: Walk | None = None
    """Of Stage B behind Stage C; None: the model's own."""


class Study:
    """The model, the pictures and what is computed once for all settings."""

    def __init__(self, data: str, pictures: int) -> None:
        self.pipeline = Pipeline.from_pretrained()
        self.count = pictures
        self.own = plan(self.pipeline.info)
        config = DataConfig(path=data, sample_by="name", size=self.pipeline.default_size)
        self.train, self.test, _ = open_pairs(config)
        self.questions = choose_questions(self.train, pictures, 0)
        self.fine: dict[str, list[Tensor]] = {}

    @cached_property
    def compressor(self) -> Compressor:
        return weights.load_compressor(weights.locate().source).eval()

    @cached_property
    def references(self) -> Tensor:
        return small_pictures(self.train)

    @cached_property
    def real(self) -> Tensor:
        return features(self.compressor, batches(self.test, len(self.test)))

    @cached_property
    def real_edges(self) -> float:
        return edges(torch.cat(list(batches(self.test, len(self.test)))))

    @torch.inference_mode()
    def semantics(self, walk: Walk, captions: Sequence[str], seed: int) -> tuple[Tensor, Tensor]:
        """Of Stage C, and the noise that Stage B starts from: the same for all settings."""
        pipeline = self.pipeline
        text = pipeline.encode(pipeline.text_c, captions)
        none = pipeline.encode(pipeline.text_c, [""] * len(captions))
        size = (pipeline.default_size,) * 2
        drawn = pipeline.semantics_from_text(
            text, noise.seeded(seed, len(captions)), size, walk, unwanted=none
        )
        return drawn, text

    @torch.inference_mode()
    def picture(self, semantics: Tensor, captions: Sequence[str], seed: int, walk: Walk) -> Tensor:
        pipeline = self.pipeline
        text = pipeline.encode(pipeline.text_b, captions)
        draw = noise.seeded(10_000 + seed, len(captions))
        return pipeline.image_from_latents(
            pipeline.latents_from_semantics(semantics, text, draw, walk)
        )


def batches(pairs: Pairs, count: int) -> Iterator[Tensor]:
    for start in range(0, count, BATCH):
        rows = [pairs.image(i) for i in range(start, min(start + BATCH, count))]
        yield torch.stack(rows) / 255


def edges(images: Tensor) -> float:
    """Mean absolute difference between pixels side by side."""
    return float((images[..., 1:] - images[..., :-1]).abs().mean())


def measure(study: Study, setting: Setting) -> Row:
    start = time.perf_counter()
    judge = _stage_b if setting.stage == "B" else _stage_c
    images, distance, nearest, first_five, decibels = judge(study, setting)
    seconds = time.perf_counter() - start
    walk = setting.walk
    drawn = features(study.compressor, images.split(BATCH))
    near, spread = frechet(drawn, study.real)
    guided = [walk.guidance.scale_at(t) is not None for t in walk.times[:-1]]
    share = (1 + sum(guided) / len(guided)) / 2 if walk.guidance.active else 1
    return Row(
        stage=setting.stage,
        name=setting.name,
        sampler=walk.sampler,
        spacing=setting.spacing,
        evaluations=walk.evaluations,
        cost=walk.evaluations * share,
        pictures=len(images),
        distance=distance,
        frechet=near,
        frechet_spread=spread,
        nearest=nearest,
        first_five=first_five,
        psnr=decibels,
        edges=edges(images) / study.real_edges,
        seconds=seconds,
    )


Judged = tuple[Tensor, float | None, float | None, float | None, float | None]


def _stage_c(study: Study, setting: Setting) -> Judged:
    drawn: list[Tensor] = []
    pictures: list[Tensor] = []

    def draw(captions: Sequence[str], seed: int) -> Tensor:
        semantics, _ = study.semantics(setting.walk, captions, seed)
        drawn.append(semantics)
        decoder = setting.decoder or study.own.decoder
        pictures.append(study.picture(semantics, captions, seed, decoder))
        return pictures[-1]

    answers = []
    for start in range(0, len(study.questions), BATCH):
        part = study.questions[start : start + BATCH]
        answers += answer(part, study.train, study.references, draw, start)
    ranks = [found.rank for found in answers]
    nearest = share_figure(sum(rank == 1 for rank in ranks), len(ranks)).value
    five = share_figure(sum(rank <= 5 for rank in ranks), len(ranks)).value
    return torch.cat(pictures), _distance(study, setting, torch.cat(drawn)), nearest, five, None


def _stage_b(study: Study, setting: Setting) -> Judged:
    drawn: list[Tensor] = []
    images: list[Tensor] = []
    decibels: list[Tensor] = []
    for index, real in enumerate(batches(study.test, study.count)):
        start = index * BATCH
        captions = [study.test[start + k].captions[0] for k in range(len(real))]
        with torch.inference_mode():
            semantics = study.compressor(shrink(real))
            pipeline = study.pipeline
            latents = pipeline.latents_from_semantics(
                semantics,
                pipeline.encode(pipeline.text_b, captions),
                noise.seeded(start, len(real)),
                setting.walk,
            )
            images.append(pipeline.image_from_latents(latents))
        drawn.append(latents)
        decibels.append(psnr(images[-1], real))
    distance = _distance(study, setting, torch.cat(drawn))
    return torch.cat(images), distance, None, None, float(torch.cat(decibels).mean())


def _distance(study: Study, setting: Setting, found: Tensor) -> float | None:
    """To the fine solution, which is the first deterministic setting of its stage."""
    if setting.walk.sampler not in DETERMINISTIC or setting.stage == "whole":
        return None
    if setting.stage not in study.fine:
        study.fine[setting.stage] = [found]
    return float((found - study.fine[setting.stage][0]).square().mean().sqrt())


def settings(study: Study) -> Iterator[Setting]:
    """All that is measured; the fine solutions first, because others are compared with them."""
    guidance = study.own.prior.guidance
    for stage, counts in (("C", (4, 6, 8, 10, 12, 16, 20, 30, 60)), ("B", (2, 3, 4, 6, 8, 12))):
        how = guidance if stage == "C" else Guidance()
        yield _even(stage, "dpm++2m", "log_snr", FINE, how)
        for sampler, count in product((*STOCHASTIC, *DETERMINISTIC), counts):
            # All spacings where they matter most: the sampler of old and the best of the others.
            wide = sampler in ("ddpm", "dpm++2m", "dpm++2m-sde")
            steps = (count + 1) // 2 if sampler == "heun" else count
            if sampler == "heun" and count % 2 == 0 and count - 1 in counts:
                continue  # the same number of steps as before
            for spacing in ("time", "log_snr", "tuned") if wide else ("time",):
                if steps > 1:
                    yield _even(stage, sampler, spacing, steps, how)
        if stage == "C":
            for sampler in ("ddpm", "dpm++2m"):
                walk = Walk(times=published_times(), sampler=sampler, guidance=how)
                yield Setting("C", f"{sampler} published 29", "published", walk)


def whole(study: Study) -> Iterator[Setting]:
    """Both stages together: first the one to lose nothing against, then cheaper ones."""
    scale = study.own.prior.guidance.scale
    old = Walk(times=uniform_times(60), guidance=Guidance(scale))
    yield Setting("whole", "60 + 12 ddpm", "time", old, Walk(times=uniform_times(12)))
    yield Setting("whole", "the model's own", "tuned", study.own.prior, study.own.decoder)
    for c, b, low in (
        (29, 12, 0.0),
        (12, 6, 0.0),
        (12, 6, 0.25),
        (12, 6, 0.5),
        (8, 4, 0.25),
        (6, 3, 0.25),
        (4, 2, 0.25),
    ):
        for sampler, spacing in (
            ("ddpm", "time"),
            ("dpm++2m", "time"),
            ("dpm++2m", "tuned"),
            ("dpm++2m-sde", "time"),
        ):
            guidance = Guidance(scale, interval=(low, 1.0))
            prior = Walk(times=TIMES[spacing](c), sampler=sampler, guidance=guidance)
            decoder = Walk(times=TIMES[spacing](b), sampler=sampler)
            name = f"{c} + {b} {sampler} {spacing}, guided from {low:g}"
            yield Setting("whole", name, spacing, prior, decoder)


def _even(stage: str, sampler: str, spacing: str, steps: int, guidance: Guidance) -> Setting:
    walk = Walk(times=TIMES[spacing](steps), sampler=sampler, guidance=guidance)
    return Setting(stage, f"{sampler} {spacing} {steps}", spacing, walk)


def read(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    return Rows.model_validate_json(path.read_bytes()).rows


class Rows(BaseModel):
    rows: list[Row]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("data", help="captioned pictures, as data.path of a config")
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--stages", default="C,B,whole")
    parser.add_argument("--out", type=Path, default=OUT)
    words = parser.parse_args()
    study = Study(words.data, words.pictures)
    rows = read(words.out)
    known = {(row.stage, row.name) for row in rows}
    for setting in (*settings(study), *whole(study)):
        fine = len(setting.walk.times) == FINE + 1
        if setting.stage not in words.stages.split(","):
            continue
        if (setting.stage, setting.name) in known and not fine:
            continue
        row = measure(study, setting)
        if (setting.stage, setting.name) not in known:
            rows.append(row)
            write_file(words.out, Rows(rows=rows).model_dump_json(indent=1).encode())
        print(row, flush=True)


if __name__ == "__main__":
    main()
