"""`wuerstchen train` as users meet it: from a folder of images to an image for a sentence."""

import os
import signal
import sys
from pathlib import Path

import pytest
from PIL import Image
from small_runs import run, write_config, write_images

from wuerstchen.cli import main
from wuerstchen.config import shipped


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "images")


def test_from_images_to_an_image(images: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    few = [f"stage_{stage}.training.images=8" for stage in "abc"]
    done = run("train", write_config(images, model), *few)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{model}\n"
    assert "broken.png" in done.stderr, "what is skipped is named"
    for stage in "abc":
        assert f"stage {stage}" in done.stderr and "images/s" in done.stderr
    drawn = run("generate", "a red disc", "--model", model, "--out", tmp_path / "red.png")
    assert drawn.returncode == 0, drawn.stderr
    with Image.open(tmp_path / "red.png") as image:
        assert image.size == (128, 128)


def test_help_names_every_shipped_config() -> None:
    shown = run("train", "--help").stdout
    assert [name for name in shipped() if name not in shown] == []


def fails(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Run the command in this process; it must leave with 2 and one message, which is returned."""
    monkeypatch.setattr(sys, "argv", ["wuerstchen", "train", *words])
    with pytest.raises(SystemExit) as left:
        main()
    out, error = capsys.readouterr()
    assert left.value.code == 2
    assert out == "" and "Traceback" not in error
    return error


def test_ctrl_c_while_the_data_is_read_is_one_sentence(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from wuerstchen.training import run as training_run

    def pressed(config: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    # A shell that started the tests in the background has switched Ctrl-C off for them.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(training_run, "open_pairs", pressed)
    words = [str(write_config(images, tmp_path / "model"))]
    try:
        message = fails(words, monkeypatch, capsys)
    finally:
        signal.signal(signal.SIGINT, before)
    assert message.startswith("Interrupted") and len(message.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_while_the_data_is_read_do_what_ctrl_c_does(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    from wuerstchen.training import run as training_run

    monkeypatch.setattr(training_run, "open_pairs", lambda _: os.kill(os.getpid(), number))
    monkeypatch.setattr(sys, "argv", ["wuerstchen", "train", str(write_config(images, tmp_path))])
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as left:
            main()
    finally:
        assert signal.signal(number, before) == signal.SIG_DFL
    assert left.value.code == 2
    assert capfd.readouterr().err.split("\n")[1:] == [
        f"Ended by {number.name}.",
        "Interrupted outside of the training steps; checkpoints are kept, run the same command to "
        "resume.",
        "",
    ]


@pytest.mark.parametrize(("ignored", "code"), [(False, 128 + signal.SIGHUP), (True, 2)])
def test_a_signal_ends_a_verb_that_cleans_up_and_nohup_is_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignored: bool, code: int
) -> None:
    from wuerstchen.receipts import folder

    def hang_up(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGHUP)

    monkeypatch.setattr(folder, "write_receipts", hang_up)
    monkeypatch.setattr(sys, "argv", ["wuerstchen", "receipt", str(tmp_path)])
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as left:
            main()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert left.value.code == code  # without a signal, there is nothing measured to show


def test_bad_words_are_one_sentence(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = str(write_config(images, tmp_path / "model"))
    for words, expected in (
        ([source, "stage_a.training.batch_siz=4"], "did you mean 'batch_size'?"),
        ([source, "data.path=nowhere"], "nowhere"),
        ([source, "--stage", "c"], "Stage c needs stage_a, stage_b, compressor"),
        (
            [source, "stage_a.training.gradient_accumulation=3", "--stage", "a"],
            "to a multiple of 3",
        ),
        ([source, f"output={source}/model"], "a file is where a folder is needed"),
        (
            [
                source,
                "stage_a.training.perceptual_loss=vgg16",
                "stage_a.training.vgg16_weights=nowhere",
            ],
            "stage_a.training.vgg16_weights is 'nowhere', which does not exist",
        ),
    ):
        assert expected in fails(words, monkeypatch, capsys)
    assert not (tmp_path / "model" / "vqgan").exists()
