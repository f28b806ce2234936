"""`wuerstchen convert` as users meet it."""

import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from small_runs import run

from wuerstchen.cli import main

BUNDLED = Path(__file__).parents[2] / "src" / "wuerstchen" / "bundled" / "emoji"


def test_there_and_back_gives_the_same_files(tmp_path: Path) -> None:
    there = tmp_path / "emoji.safetensors"
    done = run("convert", BUNDLED, there, "--to", "single-file")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{there}\n" and done.stderr == ""
    done = run("convert", there, tmp_path / "back", "--to", "diffusers")
    assert done.returncode == 0, done.stderr
    for path in BUNDLED.rglob("*"):
        if path.is_file():
            assert (tmp_path / "back" / path.relative_to(BUNDLED)).read_bytes() == path.read_bytes()


def test_help_says_what_is_read_but_never_written() -> None:
    shown = " ".join(run("convert", "--help").stdout.replace("│", " ").split())
    assert ".pt files are read but never written" in shown


def test_what_stands_there_is_replaced_only_when_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.safetensors"
    out.write_bytes(b"mine")
    words = ["wuerstchen", "convert", str(BUNDLED / "vqgan"), str(out), "--to", "original"]
    for more, code in (([], 2), (["--overwrite", "--dtype", "fp32"], 0)):
        monkeypatch.setattr(sys, "argv", [*words, *more])
        with pytest.raises(SystemExit) as left:
            main()
        assert (left.value.code or 0) == code
        if code:
            assert "is there already" in capsys.readouterr().err
            assert out.read_bytes() == b"mine"
    assert load_file(out)["vquantizer.codebook.weight"].dtype.itemsize == 4
