"""The small model in fp32, in fp64 and on disk; tests do not change them."""

from pathlib import Path

import pytest
import torch
from models_small import small_pipeline

from wuerstchen.inference.pipeline import Pipeline


@pytest.fixture(scope="session")
def pipeline() -> Pipeline:
    return small_pipeline()


@pytest.fixture(scope="session")
def double() -> Pipeline:
    """In fp64, where sums over a batch and over one image round alike for all purposes."""
    return small_pipeline().to(dtype=torch.float64)


@pytest.fixture(scope="session")
def folder(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "saved"
    pipeline.save_pretrained(folder)
    return folder
