"""Evaluate a model folder on captioned images: reconstruction and retrieval accuracy."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from wuerstchen import weights
from wuerstchen.config import DataConfig
from wuerstchen.data import Pairs
from wuerstchen.data.open import empty_split_advice
from wuerstchen.errors import DataError
from wuerstchen.evaluation import inputs, metrics, retrieval
from wuerstchen.evaluation.grid import labelled_grid, to_pil
from wuerstchen.evaluation.metrics import Estimate, fraction_estimate, mean_estimate
from wuerstchen.evaluation.reconstruction import ModelParts
from wuerstchen.evaluation.report import Evaluation, neighbour_grid, reconstruction_grid
from wuerstchen.inference.generation_plan import plan_generation
from wuerstchen.inference.pipeline import Pipeline, PromptWarning
from wuerstchen.noise import check_seed
from wuerstchen.psnr import psnr

RECONSTRUCTION_EXAMPLES, NEIGHBOUR_EXAMPLES = 16, 24


def evaluate(
    folder: Path,
    data: DataConfig,
    *,
    prompts: int = 200,
    images: int | None = None,
    seed: int = 0,
    progress: inputs.Progress = inputs.no_progress,
) -> Evaluation:
    """Measure the model in `folder` with its own default settings and image size.

    data     `size` and `buckets` are ignored: images are squares of the model's own size; the
             held-out split is that of training only with its `test_fraction` and `balance_by`
    prompts  training captions to generate, one per group; 0 skips retrieval
    images   test images to reconstruct, evenly spaced; None: all, 0 skips reconstruction
    seed     chooses the captions and all noise: the same seed gives the same figures

    Raises ModelFolderError for a model without a compressor (published ones have none), DataError
    for data without a test image, or without a training image if captions are asked for.
    """
    pipeline = inputs.open_pipeline(folder)
    compressor = weights.compressor.load(folder).to(pipeline.device, pipeline.dtype)
    train, test = inputs.open_squares(data, pipeline)
    if not len(test) and images != 0:
        raise DataError(
            f"{data.path}: expected test images, found none; {empty_split_advice(data)}."
        )
    if not len(train) and prompts:
        raise DataError(
            f"{data.path}: expected training images, found only test images; name the data that "
            "the model was trained on, or pass --prompts 0."
        )
    settings = plan_generation(pipeline.info)
    figures: dict[str, Estimate] = {}
    grids: dict[str, Image.Image] = {}
    indices = inputs.evenly_spaced(len(test), len(test) if images is None else images)
    check_seed(seed, max(len(indices), prompts, 1))
    if indices:
        model = ModelParts(pipeline.cascade, compressor, settings)
        psnrs, grids["reconstructions"] = _reconstruct(model, test, indices, seed, progress)
        figures |= psnrs
    if prompts:
        results = _retrieve(pipeline, train, prompts, seed, progress)
        figures |= _accuracies(results)
        grids["neighbours"] = neighbour_grid(results[:NEIGHBOUR_EXAMPLES], train)
    return Evaluation(
        {
            "model": pipeline.info.name,
            "data": data.path,
            "balance_by": data.balance_by,
            "train_images": len(train),
            "test_images": len(test),
            "size": pipeline.info.size,
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
    progress: inputs.Progress = inputs.no_progress,
) -> Image.Image:
    """An image for each prompt with the prompt below it; the k-th is seeded with seed + k."""
    check_seed(seed, len(prompts))
    images: list[Image.Image] = []
    progress("prompts", 0, len(prompts))
    for start, stop in inputs.batches(len(prompts), pipeline.info.size):
        generated = _generate(pipeline, prompts[start:stop], seed + start)
        images += [to_pil(image) for image in generated]
        progress("prompts", stop, len(prompts))
    return labelled_grid(images, prompts, columns)


def _reconstruct(
    model: ModelParts, test: Pairs, indices: Sequence[int], seed: int, progress: inputs.Progress
) -> tuple[dict[str, Estimate], Image.Image]:
    psnrs: list[Tensor] = []  # of (3, B): Stage A, its codes, semantics
    rows: list[tuple[Tensor, Tensor, float, Tensor, float]] = []
    progress("reconstructions", 0, len(indices))
    for start, stop in inputs.batches(len(indices), model.plan.size[0]):
        batch = indices[start:stop]
        image = torch.stack([test.image(i) for i in batch]) / 255
        captions = [test[i].captions[0] for i in batch]
        found = model.reconstruct(image, captions, seed + start)
        psnrs.append(torch.stack([psnr(each, image) for each in found]))
        by_a, _, by_b = psnrs[-1].tolist()
        rows += zip(image, found.stage_a, by_a, found.semantics, by_b, strict=True)
        rows = rows[:RECONSTRUCTION_EXAMPLES]
        progress("reconstructions", stop, len(indices))
    names = ("stage_a_psnr", "stage_a_codes_psnr", "semantics_psnr")
    figures = [mean_estimate(values) for values in torch.cat(psnrs, dim=1)]
    return dict(zip(names, figures, strict=True)), reconstruction_grid(rows)


def _retrieve(
    pipeline: Pipeline, train: Pairs, count: int, seed: int, progress: inputs.Progress
) -> list[retrieval.Retrieved]:
    queries, references = (
        retrieval.choose_queries(train, count, seed),
        retrieval.image_thumbnails(train),
    )
    results: list[retrieval.Retrieved] = []
    progress("captions", 0, len(queries))
    for start, stop in inputs.batches(len(queries), pipeline.info.size):
        results += retrieval.retrieve(
            queries[start:stop],
            train,
            references,
            lambda captions, first: _generate(pipeline, captions, first),
            seed + start,
        )
        progress("captions", stop, len(queries))
    return results


def _accuracies(results: Sequence[retrieval.Retrieved]) -> dict[str, Estimate]:
    ranks = [result.rank for result in results]
    return {
        "text_nearest": fraction_estimate(sum(rank == 1 for rank in ranks), len(ranks)),
        "text_first_five": fraction_estimate(
            sum(rank <= retrieval.TOP_K for rank in ranks), len(ranks)
        ),
    }


def _generate(pipeline: Pipeline, captions: Sequence[str], seed: int) -> Tensor:
    with warnings.catch_warnings():
        # Training truncated the same captions at the same token, so this is expected.
        warnings.simplefilter("ignore", PromptWarning)
        images = pipeline(list(captions), output_type="pt", seed=seed).images
    assert isinstance(images, Tensor)
    return metrics.finite(images.float().cpu())
