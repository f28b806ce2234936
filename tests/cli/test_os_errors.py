"""Whatever a path can do wrong ends in one sentence and exit code 2, in every verb."""

import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wuerstchen import cli, config, weights
from wuerstchen.data import open_pairs
from wuerstchen.errors import WuerstchenError
from wuerstchen.inference.pipeline import Pipeline
from wuerstchen.lora.load import read_lora
from wuerstchen.receipts import Tariff, open_receipt

TOO_LONG = "a" * 300
VERBS = {
    "inspect": ("inspect", "{}"),
    "generate, model": ("generate", "x", "--model", "{}"),
    "generate, prior": ("generate", "x", "--prior", "{}"),
    "generate, lora": ("generate", "x", "--lora", "{}"),
    "generate, from": ("generate", "--from", "{}"),
    "train, config": ("train", "{}"),
    "train, data": ("train", "tiny", "data.path={}", "output=out"),
    "plan": ("plan", "{}"),
    "prepare": ("prepare", "{}", "out"),
    "encode": ("encode", "{}"),
    "evaluate, model": ("evaluate", "{}", "data.path=nothing", "--out", "out"),
    "evaluate, prompts": ("evaluate", "--prompt-file", "{}", "--out", "out"),
    "diagnose, data": ("diagnose", "data.path={}", "--out", "out"),
    "convert": ("convert", "{}", "out", "--to", "diffusers"),
    "merge, first": ("merge", "{}", "{}", "out"),
    "receipt": ("receipt", "{}"),
}
"""Every argument that names an input."""

OUTPUTS = {
    "generate": ("generate", "x", "--out", "{}"),
    "train": ("train", "tiny", "data.path=.", "output={}"),
    "prepare": ("prepare", ".", "{}"),
    "evaluate": ("evaluate", "--prompt-file", "prompts.txt", "--out", "{}"),
    "diagnose": ("diagnose", "data.path=.", "--out", "{}"),
    "convert": ("convert", "stickers", "{}", "--to", "diffusers"),
    "single file": ("convert", "stickers", "{}", "--to", "single-file"),
    "merge": ("merge", "stickers", "stickers", "{}"),
}


def too_long(path: Path) -> str:
    return TOO_LONG


def loop(path: Path) -> str:
    path.symlink_to(path.name)
    return str(path)


def below_a_file(path: Path) -> str:
    path.write_bytes(b"x")
    return f"{path}/more"


def pipe(path: Path) -> str:
    """Would be waited for without end."""
    os.mkfifo(path)
    return str(path)


def device(path: Path) -> str:
    """Would be read without end."""
    return "/dev/zero"


def not_utf8(path: Path) -> str:
    return os.fsdecode(b"\xff\xfe\x1b[31m")


def empty_folder(path: Path) -> str:
    path.mkdir()
    return str(path)


FAULTS = [too_long, loop, below_a_file, pipe, device, not_utf8, empty_folder]
ONLY_OUTPUT = [too_long, loop, below_a_file]


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["wuerstchen", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert isinstance(end.value.code, int)
    return end.value.code


def check(
    words: tuple[str, ...], path: str, monkeypatch: pytest.MonkeyPatch, capfd: object
) -> None:
    code = run([word.replace("{}", path) for word in words], monkeypatch)
    out, error = capfd.readouterr()  # type: ignore[attr-defined]
    assert code == 2 and "Traceback" not in error and not out, (code, out, error)
    assert error.strip() and "\x1b" not in error
    assert error.strip().splitlines()[-1].endswith("."), error


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In a folder of its own, with an end to what would wait for a pipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "1000")
    (tmp_path / "prompts.txt").write_text("a heart")
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(15)
    yield
    signal.alarm(0)


def _too_long(*_: object) -> None:
    raise AssertionError("no end within 60 s")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("verb", VERBS)
def test_an_input_that_cannot_be_used_is_one_sentence(
    verb: str, fault: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    check(VERBS[verb], fault(tmp_path / "input"), monkeypatch, capfd)


@pytest.mark.parametrize("fault", ONLY_OUTPUT, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("verb", OUTPUTS)
def test_an_output_that_cannot_be_used_is_one_sentence(
    verb: str, fault: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    suffix = {"generate": ".png", "single file": ".safetensors"}.get(verb, "")
    check(OUTPUTS[verb], fault(tmp_path / f"output{suffix}"), monkeypatch, capfd)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_folder_that_may_not_be_entered_is_one_sentence(
    number: int, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "locked/config.json")

    monkeypatch.setattr(Path, "is_dir", refuse)  # root may enter every folder
    check(VERBS["inspect"], "locked", monkeypatch, capfd)


API: dict[str, Callable[[str], object]] = {
    "from_pretrained": lambda path: Pipeline.from_pretrained(path, local_files_only=True),
    "resolve": lambda path: weights.resolve(path, local_files_only=True),
    "resolve_components": weights.resolve_components,
    "describe": lambda path: weights.describe(Path(path)),
    "config": config.load,
    "data": lambda path: open_pairs(config.DataConfig(path=path)),
    "read_lora": lambda path: read_lora(Path(path), stage_c=None, stage_b=None),
    "receipt": lambda path: open_receipt(Path(path), Tariff()),
}


@pytest.mark.parametrize("path", [TOO_LONG, "nul\0", "lone\ud800", "/dev/zero"], ids=ascii)
@pytest.mark.parametrize("name", API)
def test_python_callers_see_errors_of_our_tree(name: str, path: str) -> None:
    with pytest.raises(WuerstchenError):
        API[name](path)
