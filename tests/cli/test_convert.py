"""`wuerstchen convert` as users meet it."""

import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from wuerstchen.cli import main

BUNDLED = Path(__file__).parents[2] / "src" / "wuerstchen" / "bundled" / "stickers"


@pytest.fixture
def convert(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["wuerstchen", "convert", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, error = capsys.readouterr()
        return int(ended.value.code or 0), out, error

    return run


def test_there_and_back_gives_the_same_files(convert, tmp_path: Path) -> None:
    there = tmp_path / "stickers.safetensors"
    assert convert(BUNDLED, there, "--to", "single-file") == (0, f"{there}\n", "")
    code, _, error = convert(there, tmp_path / "back", "--to", "diffusers")
    assert code == 0, error
    for path in BUNDLED.rglob("*"):
        if path.is_file():
            assert (tmp_path / "back" / path.relative_to(BUNDLED)).read_bytes() == path.read_bytes()


def test_help_states_that_pt_files_are_read_but_never_written(convert) -> None:
    _, shown, _ = convert("--help")
    assert ".pt files are read but never written" in " ".join(shown.replace("│", " ").split())


def test_existing_files_are_replaced_only_on_request(convert, tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    out.write_bytes(b"mine")
    words = (BUNDLED / "vqgan", out, "--to", "original")
    code, _, error = convert(*words)
    assert code == 2 and "exists already" in error
    assert out.read_bytes() == b"mine"
    code, _, error = convert(*words, "--overwrite", "--dtype", "fp32")
    assert code == 0, error
    assert load_file(out)["vquantizer.codebook.weight"].dtype.itemsize == 4
