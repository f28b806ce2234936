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
from wuerstchen import weights
from wuerstchen.config import Config
from wuerstchen.evaluation.grid import labelled_grid, to_pil
from wuerstchen.evaluation.inputs import Draw
from wuerstchen.models.compressor import shrink
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.noise import RandomStreams
from wuerstchen.psnr import psnr
from wuerstchen.training.crops import sample_grid
from wuerstchen.training.frozen import FrozenStageA, StageBText, decode_semantics

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
    text = StageBText(None, config.text.max_length, stage_b.config.text_width)
    by_b = torch.cat([_drawn(part, text, stage_b, stage_a) for part in semantics.split(32)])
    rows = [each[k : k + COLUMNS] for k in (0, COLUMNS) for each in (images, by_a, by_b)]
    _write(to_pil(sample_grid(rows)), out / RECONSTRUCTIONS)
    return Reconstruction(
        stage_a_psnr=float(psnr(by_a.clamp(0, 1), images).mean()),
        stage_b_psnr=float(psnr(by_b.clamp(0, 1), images).mean()),
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
def _drawn(semantics: Tensor, text: StageBText, stage_b: StageB, stage_a: StageA) -> Tensor:
    """(B, 3, H, W) images from (B, S, h, w) true semantics."""
    captions = [""] * len(semantics)
    streams = RandomStreams([torch.Generator().manual_seed(0)], len(semantics))
    tokens = text(captions, semantics.device)
    return decode_semantics(semantics, tokens, stage_b, FrozenStageA(stage_a), streams)


def _edges(images: Tensor) -> Tensor:
    return images.diff(dim=-1).abs().mean() + images.diff(dim=-2).abs().mean()


def _write(image: Image.Image, path: Path) -> None:
    image.save(path, quality=92)
