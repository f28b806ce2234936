"""The default sizes are the published ones, tensor by tensor."""

from collections.abc import Callable

import pytest
import torch
from diffusers.pipelines.deprecated.wuerstchen import (
    PaellaVQModel,
    WuerstchenDiffNeXt,
    WuerstchenPrior,
)
from torch import nn

from wuerstchen.config import CompressorModel, StageAModel, StageBModel, StageCModel
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.weights.names import STAGE_A, STAGE_B, STAGE_C, Names, published_key


def stage_a() -> StageA:
    return StageA(StageAModel())


def stage_b() -> StageB:
    return StageB(StageBModel())


def stage_c() -> StageC:
    return StageC(StageCModel())


def prior() -> nn.Module:
    released: nn.Module = WuerstchenPrior(c_in=16, c=1536, c_cond=1280, c_r=64, depth=32, nhead=24)
    return released


@pytest.mark.parametrize(
    ("build", "published"),
    [
        (stage_a, 18_406_894),
        (stage_b, 1_055_365_280),
        (stage_c, 993_636_896),
        (lambda: Compressor(CompressorModel(affine=False)), 20_197_968),
    ],
)
def test_the_default_has_the_published_number_of_parameters(
    build: Callable[[], nn.Module], published: int
) -> None:
    with torch.device("meta"):
        network = build()
    assert sum(parameter.numel() for parameter in network.parameters()) == published


@pytest.mark.parametrize(
    ("build", "released", "names"),
    [
        (stage_a, PaellaVQModel, STAGE_A),
        (stage_b, WuerstchenDiffNeXt, STAGE_B),
        (stage_c, prior, STAGE_C),
    ],
)
def test_the_default_has_the_tensors_of_diffusers(
    build: Callable[[], nn.Module], released: Callable[[], nn.Module], names: Names
) -> None:
    with torch.device("meta"):
        ours, theirs = build(), released()
    found = {published_key(name, names): t.shape for name, t in ours.state_dict().items()}
    assert found == {name: t.shape for name, t in theirs.state_dict().items()}
