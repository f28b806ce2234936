"""One tiny model, trained once through all stages, for every test that reads."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_runs import config, write_images

from wuerstchen.config import DataConfig
from wuerstchen.data import Pairs, open_pairs
from wuerstchen.training import run as training_run


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """As in the processes that tests start: the order of sums depends on the threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="session")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """All three stages, 24 steps each, without an interruption. Do not write into it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return training_run.train(config(images, tmp_path_factory.mktemp("models") / "whole"))


@pytest.fixture(scope="module")
def splits(images: Path) -> tuple[Pairs, Pairs]:
    train, test, _ = open_pairs(DataConfig(path=str(images), test_fraction=0.2))
    return train, test
