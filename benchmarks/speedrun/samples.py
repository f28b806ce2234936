"""Reconstructions of held-out scenes, and images of prompts."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.speedrun.phases import Place
from benchmarks.speedrun.scenes import Scenes
from wuerstchen import Pipeline, diffusion, weights
from wuerstchen.config import Config
from wuerstchen.geometry import latent_size_of_semantics
from wuerstchen.models.compressor import shrink
from wuerstchen.models.stage_b import StageB
from wuerstchen.training.crops import sample_grid

RECONSTRUCTED, SHOWN, COLUMNS = 128, 8, 8

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


def write_samples(
    config: Config, folder: Path, test: Scenes, train: Scenes, place: Place, out: Path
) -> dict[str, float]:
    """Write grids; returns PSNR of Stage A, and of B and A from true semantics."""
    device = place.device
    images = torch.stack([test.image(i) for i in range(RECONSTRUCTED)]).float() / 255
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
    pipeline = Pipeline.from_pretrained(folder).to(device)
    rows = [images[:SHOWN], by_a[:SHOWN], by_b[:SHOWN]]
    _write(sample_grid([*rows, images[8:16], by_a[8:16], by_b[8:16]]), out / "reconstructed.webp")
    size = config.data.size
    captions = [test[i].captions[0] for i in range(16)] + [train[i].captions[0] for i in range(16)]
    for name, prompts in (("prompts", list(PROMPTS)), ("captions", captions)):
        drawn = pipeline(list(prompts), size, size, seed=0, output_type="pt").images
        tensors = torch.as_tensor(drawn).cpu()
        lines = list(tensors.split(COLUMNS))
        if name == "captions":
            real = [test.image(i) for i in range(16)] + [train.image(i) for i in range(16)]
            real_lines = list((torch.stack(real).float() / 255).split(COLUMNS))
            lines = [line for pair in zip(real_lines, lines, strict=True) for line in pair]
        _write(sample_grid(lines), out / f"{name}.webp")
    (out / "captions.txt").write_text("\n".join(captions), encoding="utf-8")
    return {
        "psnr_a": _psnr(by_a, images),
        "psnr_b": _psnr(by_b, images),
        "edges_b": float(_edges(by_b) / _edges(images)),
    }


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


def _write(image: Tensor, path: Path) -> None:
    levels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    Image.fromarray(np.ascontiguousarray(levels)).save(path, quality=92)
