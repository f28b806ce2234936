"""A finished model folder to read, and a copy of it to damage."""

import shutil
from pathlib import Path

import pytest
from small_networks import COMPRESSOR, A, B, C, keep_from_one, randomised, small_text

from wuerstchen import weights
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished model folder; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("whole")
    weights.save_stage_a(folder, randomised(StageA(A)))
    weights.save_stage_b(folder, randomised(StageB(B)))
    stage_c = randomised(StageC(C))
    keep_from_one(stage_c.head[1])
    weights.save_stage_c(folder, stage_c)
    weights.save_compressor(folder, randomised(Compressor(COMPRESSOR)))
    weights.save_text_encoder(folder, small_text(seed=1), "b")
    weights.save_text_encoder(folder, small_text(seed=2), "c")
    weights.finish_folder(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))
