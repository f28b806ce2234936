"""A small untrained model, small images of four colours, and one run of each command's function."""

import json
from pathlib import Path

import pytest
import torch
from models_small import CHANNELS, small_pipeline, stir
from PIL import Image

from wuerstchen import weights
from wuerstchen.config import CompressorModel, DataConfig
from wuerstchen.evaluation import Evaluation, evaluate
from wuerstchen.evaluation.diagnose import diagnose
from wuerstchen.evaluation.diagnosis import Diagnosis
from wuerstchen.models.compressor import Compressor

COLOURS = {"red": 3, "lime": 3, "blue": 2, "black": 2}
"""Images of each object."""


@pytest.fixture(scope="session")
def bare_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without a compressor, as published ones are."""
    folder = tmp_path_factory.mktemp("bare-model")
    small_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    small_pipeline().save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        compressor = Compressor(CompressorModel(channels=CHANNELS, width=0.25, depth=0.1))
        stir(compressor)
    weights.compressor.save(folder, compressor)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """Ten images: squares and stripes on paper of one colour per object."""
    folder = tmp_path_factory.mktemp("images")
    rows = []
    for colour, count in COLOURS.items():
        for k in range(count):
            image = Image.new("RGB", (140, 140), colour)
            image.paste("white", (10 * k, 20, 10 * k + 30, 50))
            image.save(folder / f"{colour}-{k}.png")
            caption = {"text": f"a <{colour}> sheet", "object": colour}
            rows.append({"file_name": f"{colour}-{k}.png", **caption})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return DataConfig(path=str(folder), balance_by="object", test_fraction=0.3)


@pytest.fixture(scope="session")
def diagnosis(model: Path, data: DataConfig) -> Diagnosis:
    return diagnose(model, data, images=3)


@pytest.fixture(scope="session")
def evaluation(model: Path, data: DataConfig) -> Evaluation:
    return evaluate(model, data, prompts=3)
