"""The three stages of a speedrun, each trained by its own trainer on scenes in memory.

N scenes of S x S pixels, B images of a batch.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, final

import torch
from torch import Tensor, nn

from benchmarks.speedrun.report import StageResult
from benchmarks.speedrun.scenes import Scenes
from benchmarks.speedrun.text import new_text_encoder
from benchmarks.speedrun.timed import Journal, train_for
from wuerstchen import weights
from wuerstchen.config import Config, TrainingConfig
from wuerstchen.data import Batch, Pairs
from wuerstchen.geometry import SEMANTICS_SCALE
from wuerstchen.inference.model_info import ModelInfo, ModelStageSettings, new_info
from wuerstchen.models.blocks import AttentionBlock, ConvBlock
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.training.frozen import FrozenStages, StageBText
from wuerstchen.training.optim import autocast_dtype
from wuerstchen.training.perceptual import pyramid_loss
from wuerstchen.training.stage import Stage
from wuerstchen.training.stage_a import StageATrainer
from wuerstchen.training.stage_b import StageBTrainer
from wuerstchen.training.stage_c import StageCTrainer

AT_ONCE = 64
"""Images that are encoded together."""

PRIOR_STEPS, GUIDANCE = 20, 4.0

COMPILED = (ConvBlock, AttentionBlock)
"""Blocks share one program for each shape: a network as a whole compiles for minutes."""


@dataclass(frozen=True)
class Place:
    """Where and how a speedrun computes."""

    device: torch.device
    compiled: bool


@final
class StoredRows:
    """Encodings of all scenes on the device."""

    def __init__(self, values: Tensor) -> None:
        self._values = values

    def rows(self, numbers: Sequence[int], /) -> Tensor:
        indices = torch.tensor(list(numbers)).to(self._values.device)
        return self._values[indices].float()


def run_stage_a(
    config: Config, seconds: float, scenes: Scenes, folder: Path, place: Place, journal: Journal
) -> StageResult:
    """Random crops are cut before they reach the device."""
    torch.manual_seed(config.seed)
    network = StageA(config.stage_a.model)
    stage = StageATrainer(config.stage_a, network, pyramid_loss, cast(Pairs, scenes))
    training, choose = stage.training, random.Random(config.seed)
    side = training.crop_size

    def batch() -> Batch:
        crops = []
        for _ in range(training.batch_size):
            top, left = (choose.randrange(scenes.size - side + 1) for _ in range(2))
            crops.append(
                scenes.pixels[choose.randrange(len(scenes)), top : top + side, left : left + side]
            )
        return _batch(torch.stack(crops).to(place.device), range(training.batch_size))

    return _train(stage, seconds, batch, folder, place, journal, config.seed)


def run_stage_b(
    config: Config, seconds: float, scenes: Scenes, folder: Path, place: Place, journal: Journal
) -> StageResult:
    """Train the compressor and Stage B on latents that are computed once."""
    torch.manual_seed(config.seed)
    stage_a = weights.stage_a.load(folder).to(place.device)
    compressor, stage_b = Compressor(config.compressor), StageB(config.stage_b.model)
    with torch.no_grad():
        for mapper in stage_b.semantics_mappers:
            if isinstance(mapper, nn.Conv2d):
                mapper.weight.div_(SEMANTICS_SCALE)
    pixels = scenes.pixels.to(place.device)
    with journal.meter.as_kind("encoding"):
        latents = _encode_all(stage_a.encode, pixels, place, config.stage_b.training)
    text = StageBText(None, config.text.max_length, config.stage_b.model.text_width)
    stage = StageBTrainer(config, stage_a, compressor, stage_b, text, StoredRows(latents))
    pick = torch.Generator().manual_seed(config.seed)

    def batch() -> Batch:
        rows = torch.randint(len(pixels), (stage.training.batch_size,), generator=pick)
        return _batch(pixels[rows.to(place.device)], rows.tolist())

    return _train(stage, seconds, batch, folder, place, journal, config.seed, stage_b)


def run_stage_c(
    config: Config, seconds: float, scenes: Scenes, folder: Path, place: Place, journal: Journal
) -> StageResult:
    """Train Stage C and its text encoder on semantics that are computed once."""
    torch.manual_seed(config.seed)
    stage_a, stage_b = weights.stage_a.load(folder), weights.stage_b.load(folder)
    compressor = weights.compressor.load(folder).to(place.device)
    captions = scenes.all_captions()
    text = new_text_encoder(config.text, captions)
    text.keep(captions, place.device)
    text_b = StageBText(None, config.text.max_length, config.stage_b.model.text_width)
    frozen = FrozenStages(stage_a, stage_b, compressor, text_b, 0.0)
    with journal.meter.as_kind("encoding"):
        values = _encode_all(frozen.compress, scenes.pixels, place, config.stage_c.training)
    frozen = FrozenStages(stage_a, stage_b, compressor, text_b, 0.0, StoredRows(values))
    stage_c = StageC(config.stage_c.model)
    stage = StageCTrainer(config, frozen, text, stage_c, model_info(config))
    pick, choose = torch.Generator().manual_seed(config.seed), random.Random(config.seed)

    def batch() -> Batch:
        rows = torch.randint(len(values), (stage.training.batch_size,), generator=pick).tolist()
        captions = scenes.captions_of(rows, choose)
        return Batch(torch.empty(0), captions, [""] * len(rows), rows)

    return _train(stage, seconds, batch, folder, place, journal, config.seed)


def model_info(config: Config) -> ModelInfo:
    """Name, size and default settings of the model."""
    prior = ModelStageSettings(
        steps=PRIOR_STEPS,
        guidance_scale=GUIDANCE,
        guidance_interval=(0.25, 1.0),
        guidance_rescale=0.0,
    )
    info = new_info(config.stage_b.model.predicts)
    defaults = info.defaults.model_copy(update={"prior": prior})
    return info.model_copy(
        update={"name": config.name, "size": config.data.size, "defaults": defaults}
    )


def _train(
    stage: Stage,
    seconds: float,
    batch: Callable[[], Batch],
    folder: Path,
    place: Place,
    journal: Journal,
    seed: int,
    *parts: nn.Module,
) -> StageResult:
    """parts: networks whose blocks are compiled, for the few shapes that training has"""
    blocks = [b for part in parts for b in part.modules() if isinstance(b, COMPILED)]
    for block in blocks if place.compiled else ():
        block.compile(dynamic=False)
    run = train_for(
        stage,
        seconds,
        batch,
        place.device,
        seed,
        journal,
        compiled=place.compiled and bool(blocks),
    )
    for block in blocks:
        block._compiled_call_impl = None
    stage.export(stage.networks()[stage.trained], folder)
    return run


def _batch(pixels: Tensor, indices: Sequence[int]) -> Batch:
    """Of (B, S, S, 3) levels."""
    images = pixels.permute(0, 3, 1, 2).float() / 255
    return Batch(images, [""] * len(images), [""] * len(images), list(indices))


@torch.no_grad()
def _encode_all(
    encode: Callable[[Tensor], Tensor], pixels: Tensor, place: Place, training: TrainingConfig
) -> Tensor:
    """What a frozen network makes of all scenes, in the precision of the training that reads it."""
    dtype, rows = autocast_dtype(training), list[Tensor]()
    bf16 = dtype is torch.bfloat16
    for part in pixels.split(AT_ONCE):
        images = part.to(place.device).permute(0, 3, 1, 2).float() / 255
        with torch.autocast(place.device.type, torch.bfloat16, enabled=bf16):
            rows.append(encode(images).to(dtype))
    return torch.cat(rows)
