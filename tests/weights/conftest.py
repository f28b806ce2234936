"""A complete model folder to read, and a copy of it to change."""

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
    """A complete model folder; tests that change it use a copy."""
    folder = tmp_path_factory.mktemp("whole")
    weights.stage_a.save(folder, randomised(StageA(A)))
    weights.stage_b.save(folder, randomised(StageB(B)))
    stage_c = randomised(StageC(C))
    keep_from_one(stage_c.head[1])
    weights.stage_c.save(folder, stage_c)
    weights.compressor.save(folder, randomised(Compressor(COMPRESSOR)))
    weights.text_b.save(folder, small_text(seed=1))
    weights.text_c.save(folder, small_text(seed=2))
    weights.write_index(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))
