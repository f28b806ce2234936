"""Measure a model folder on captioned images: reconstruction, and whether text is followed."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from wuerstchen import weights
from wuerstchen.config import DataConfig
from wuerstchen.data import Pairs, open_pairs
from wuerstchen.data.open import empty_split_advice
from wuerstchen.errors import DataError
from wuerstchen.evaluation.batching import Progress, batches, evenly, silent
from wuerstchen.evaluation.grid import labelled_grid, to_pil
from wuerstchen.evaluation.metrics import Figure, mean_figure, psnr, share_figure
from wuerstchen.evaluation.nearest_neighbours import (
    FIRST,
    Answer,
    answer,
    choose_questions,
    small_images,
)
from wuerstchen.evaluation.reconstruct import reconstruct
from wuerstchen.evaluation.report import Evaluation, neighbour_grid, reconstruction_grid
from wuerstchen.inference.generation_plan import Plan, plan
from wuerstchen.inference.pipeline import Pipeline, PromptWarning
from wuerstchen.models.compressor import Compressor

SHOWN_RECONSTRUCTIONS, SHOWN_NEIGHBOURS = 16, 24


def evaluate(
    folder: Path,
    data: DataConfig,
    *,
    prompts: int = 200,
    images: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Evaluation:
    """Measure the model in `folder` with its own default settings and image size.

    data      its `size` and `buckets` are not used: images are squares of the model's own size;
              held out are those of the training only with its `test_fraction` and `balance_by`
    prompts   training captions to draw, one per group; 0 leaves the text figures out
    images  test images to reconstruct, spread evenly; None: all, 0: none
    seed      chooses the captions and all noise: the same seed gives the same figures

    Raises ModelFolderError for a model without a compressor (published ones have none), DataError
    for data without a test image.
    """
    pipeline = open_pipeline(folder)
    compressor = weights.compressor.load(folder)
    train, test = open_squares(data, pipeline)
    if not len(test) and images != 0:
        raise DataError(
            f"{data.path}: expected test images, found none; {empty_split_advice(data)}."
        )
    settings = plan(pipeline.info)
    figures: dict[str, Figure] = {}
    grids: dict[str, Image.Image] = {}
    chosen = evenly(len(test), len(test) if images is None else images)
    if chosen:
        found, grids["reconstructions"] = _measure_images(
            pipeline, compressor, test, chosen, settings, seed, progress
        )
        figures |= found
    if prompts:
        answers = _ask(pipeline, train, prompts, seed, progress)
        figures |= _text_figures(answers)
        grids["neighbours"] = neighbour_grid(answers[:SHOWN_NEIGHBOURS], train)
    return Evaluation(
        {
            "model": pipeline.info.name,
            "data": data.path,
            "balance_by": data.balance_by,
            "train_images": len(train),
            "test_images": len(test),
            "size": pipeline.default_size,
            "seed": seed,
            "prior_sampler": settings.prior.sampler,
            "prior_timesteps": settings.prior.times,
            "prior_guidance_scale": settings.prior.guidance.scale,
            "decoder_sampler": settings.decoder.sampler,
            "decoder_timesteps": settings.decoder.times,
            "decoder_guidance_scale": settings.decoder.guidance.scale,
        },
        figures,
        grids,
    )


def prompt_grid(
    pipeline: Pipeline,
    prompts: Sequence[str],
    columns: int,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> Image.Image:
    """An image for each prompt with the prompt below it; the k-th is drawn from seed + k."""
    images: list[Image.Image] = []
    progress("prompts", 0, len(prompts))
    for start, stop in batches(len(prompts), pipeline.default_size):
        drawn = _draw(pipeline, prompts[start:stop], seed + start)
        images += [to_pil(image) for image in drawn]
        progress("prompts", stop, len(prompts))
    return labelled_grid(images, prompts, columns)


def open_squares(data: DataConfig, pipeline: Pipeline) -> tuple[Pairs, Pairs]:
    """Training and held-out images as squares of the size that the model draws."""
    squares = {"size": pipeline.default_size, "buckets": False}
    train, test, _ = open_pairs(data.model_copy(update=squares))
    return train, test


def open_pipeline(folder: Path) -> Pipeline:
    """The model in `folder`, on the accelerator where there is one."""
    return Pipeline.from_pretrained(folder).to("cuda" if torch.cuda.is_available() else "cpu")


def _measure_images(
    pipeline: Pipeline,
    compressor: Compressor,
    test: Pairs,
    chosen: Sequence[int],
    settings: Plan,
    seed: int,
    progress: Progress,
) -> tuple[dict[str, Figure], Image.Image]:
    psnrs: list[Tensor] = []  # of (3, B): Stage A, its codes, semantics
    rows: list[tuple[Tensor, Tensor, float, Tensor, float]] = []
    progress("reconstructions", 0, len(chosen))
    for start, stop in batches(len(chosen), pipeline.default_size):
        part = chosen[start:stop]
        image = torch.stack([test.image(i) for i in part]) / 255
        captions = [test[i].captions[0] for i in part]
        made = reconstruct(pipeline, compressor, image, captions, settings, seed + start)
        ways = (made.stage_a, made.codes, made.semantics)
        psnrs.append(torch.stack([psnr(way, image) for way in ways]))
        alone, _, through = psnrs[-1].tolist()
        rows += zip(image, made.stage_a, alone, made.semantics, through, strict=True)
        rows = rows[:SHOWN_RECONSTRUCTIONS]
        progress("reconstructions", stop, len(chosen))
    names = ("stage_a_psnr", "stage_a_codes_psnr", "semantics_psnr")
    figures = [mean_figure(values) for values in torch.cat(psnrs, dim=1)]
    return dict(zip(names, figures, strict=True)), reconstruction_grid(rows)


def _ask(
    pipeline: Pipeline, train: Pairs, count: int, seed: int, progress: Progress
) -> list[Answer]:
    questions, references = choose_questions(train, count, seed), small_images(train)
    answers: list[Answer] = []
    progress("captions", 0, len(questions))
    for start, stop in batches(len(questions), pipeline.default_size):
        answers += answer(
            questions[start:stop],
            train,
            references,
            lambda captions, first: _draw(pipeline, captions, first),
            seed + start,
        )
        progress("captions", stop, len(questions))
    return answers


def _text_figures(answers: Sequence[Answer]) -> dict[str, Figure]:
    ranks = [found.rank for found in answers]
    return {
        "text_nearest": share_figure(sum(rank == 1 for rank in ranks), len(ranks)),
        "text_first_five": share_figure(sum(rank <= FIRST for rank in ranks), len(ranks)),
    }


def _draw(pipeline: Pipeline, captions: Sequence[str], seed: int) -> Tensor:
    with warnings.catch_warnings():
        # Training cut the same captions at the same token: no news to whoever measures.
        warnings.simplefilter("ignore", PromptWarning)
        images = pipeline(list(captions), output_type="pt", seed=seed).images
    assert isinstance(images, Tensor)
    return images.float().cpu()
