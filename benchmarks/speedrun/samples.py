"""Reconstructions of held-out scenes, and images of prompts."""

import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from benchmarks.speedrun.phases import Place
from benchmarks.speedrun.report import Reconstruction
from benchmarks.speedrun.scenes import Scenes
from wuerstchen import diffusion, weights
from wuerstchen.config import Config
from wuerstchen.evaluation.grid import labelled_grid, to_pil
from wuerstchen.evaluation.stickers import Draw
from wuerstchen.geometry import latent_size_of_semantics
from wuerstchen.models.compressor import shrink
from wuerstchen.models.stage_b import StageB
from wuerstchen.training.crops import sample_grid

RECONSTRUCTED, CAPTIONED, COLUMNS = 128, 16, 8

RECONSTRUCTIONS, DRAWN, CAPTIONS = "reconstructed.webp", "prompts.webp", "captions.webp"
"""The grids."""

PROMPTS = (
    "a 3D red heart on a white background",
    "a flat green heart on a black background",
    "a noto rocket on a blue background",
    "a 3D panda on a yellow background",
    "a twemoji hamburger, red background",
    "a blob style dog face on a green background",
    "an emojione sailboat on a cyan background",
    "two 3D apples on a white background",
    "three flat trees on a pink background",
    "a flat cat face to the left of a flat pizza on a gray background",
    "a 3D soccer ball above a 3D whale, purple background",
    "a 3D blue circle on a white background",
    "a flat orange square on a black background",
    "a 3D penguin on an orange background",
    "a noto owl in noto style on brown",
    "a crying face, emojione, on a white background",
)


def write_reconstructions(
    config: Config, folder: Path, test: Scenes, place: Place, out: Path
) -> Reconstruction:
    """A grid of held-out scenes, Stage A's copies, and what B and A draw from true semantics."""
    device = place.device
    images = torch.stack([test.image(i) for i in range(len(test))]).float() / 255
    stage_a = weights.stage_a.load(folder).to(device)
    compressor = weights.compressor.load(folder).to(device)
    with torch.no_grad():
        batches = images.to(device).split(32)
        by_a = torch.cat([stage_a.decode(stage_a.encode(part)) for part in batches]).cpu()
        semantics = torch.cat([compressor(shrink(part)) for part in batches])
    stage_b = weights.stage_b.load(folder).to(device)
    tokens = config.text.max_length
    latents = torch.cat([_latents(stage_b, part, tokens) for part in semantics.split(32)])
    with torch.no_grad():
        by_b = torch.cat([stage_a.decode(part) for part in latents.split(32)]).cpu()
    rows = [each[k : k + COLUMNS] for k in (0, COLUMNS) for each in (images, by_a, by_b)]
    _write(to_pil(sample_grid(rows)), out / RECONSTRUCTIONS)
    return Reconstruction(
        stage_a_psnr=_psnr(by_a, images),
        stage_b_psnr=_psnr(by_b, images),
        stage_b_edges=float(_edges(by_b) / _edges(images)),
    )


def write_drawn(draw: Draw, scenes: Sequence[Scenes], out: Path) -> float:
    """Grids of `PROMPTS`, and of captions below their scenes; returns seconds per image.

    scenes  whose first captions are drawn
    """
    captions = [each[i].captions[0] for each in scenes for i in range(CAPTIONED)]
    real = [to_pil(each.image(i) / 255) for each in scenes for i in range(CAPTIONED)]
    begun = time.perf_counter()
    drawn = [list(draw(prompts, 0)) for prompts in (PROMPTS, captions)]
    seconds = time.perf_counter() - begun
    _write(labelled_grid(drawn[0], PROMPTS, COLUMNS), out / DRAWN)
    cells = [(image, "") for image in real], list(zip(drawn[1], captions, strict=True))
    rows = [each[k : k + COLUMNS] for k in range(0, len(real), COLUMNS) for each in cells]
    images, labels = zip(*chain.from_iterable(rows), strict=True)
    _write(labelled_grid(images, labels, COLUMNS), out / CAPTIONS)
    (out / "captions.txt").write_text("\n".join(captions), encoding="utf-8")
    return seconds / (len(PROMPTS) + len(captions))


@torch.no_grad()
def _latents(stage_b: StageB, semantics: Tensor, tokens: int) -> Tensor:
    """Sampled from (B, S, h, w) true semantics."""
    size = latent_size_of_semantics(semantics.shape[-2], semantics.shape[-1])
    text = torch.zeros(len(semantics), tokens, stage_b.config.text_width, device=semantics.device)
    denoise = diffusion.unguided(stage_b, stage_b.condition(semantics, text, size))
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(len(semantics), 4, *size, generator=generator).to(semantics.device)
    *_, latents = diffusion.ddim(denoise, start, diffusion.DATA_TIMES, torch.randn_like)
    return latents


def _edges(images: Tensor) -> Tensor:
    return images.diff(dim=-1).abs().mean() + images.diff(dim=-2).abs().mean()


def _psnr(made: Tensor, images: Tensor) -> float:
    squares = (made.clamp(0, 1) - images).square().mean(dim=(1, 2, 3))
    return float((-10 * squares.log10()).mean())


def _write(image: Image.Image, path: Path) -> None:
    image.save(path, quality=92)
