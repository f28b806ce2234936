"""A small model on disk, and the command that generates with it."""

import sys
from pathlib import Path

import pytest
from in_process import Done, Generate
from models_small import small_pipeline

from wuerstchen import cli


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "small"
    small_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def generate(model, tmp_path, monkeypatch, capfd) -> Generate:
    """`wuerstchen generate` with the small model, unless another or the bundled one is named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: object, bundled: bool = False) -> Done:
        given = [] if bundled or "--model" in words else ["--model", str(model)]
        monkeypatch.setattr(sys, "argv", ["wuerstchen", "generate", *map(str, words), *given])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, error = capfd.readouterr()
        return Done(int(ended.value.code or 0), out.splitlines(), error)

    return call
