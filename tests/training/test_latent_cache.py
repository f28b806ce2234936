"""Laws of encodings: training from them is training from images; stale ones are not read."""

import logging
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from models_small import small_pipeline
from small_runs import config, run, start, weights_of, write_config

from wuerstchen import weights
from wuerstchen.config import Config
from wuerstchen.data import BatchLoader, Pairs, open_pairs
from wuerstchen.errors import TrainingError
from wuerstchen.models.compressor import shrink
from wuerstchen.models.text import encode_frozen
from wuerstchen.receipts import Tariff, open_receipt
from wuerstchen.training import latent_cache
from wuerstchen.training import run as training_run
from wuerstchen.training.cache_latents import encode
from wuerstchen.training.latent_cache import TextStates, find_encoding


def settings(images: Path, model: Path, encoded: Path, **data: object) -> Config:
    base = config(images, model)
    values = base.data.model_copy(update={"latent_cache": str(encoded), **data})
    return base.model_copy(update={"data": values})


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    """A model whose Stages A and B are done."""
    folder = Path(shutil.copytree(trained, tmp_path / "model"))
    shutil.rmtree(folder / "runs" / "c")
    return folder


def train_of(settings: Config) -> Pairs:
    return open_pairs(settings.data)[0]


def test_rows_are_what_the_compressor_says_of_each_image(
    images: Path, model: Path, tmp_path: Path
) -> None:
    how = settings(images, model, tmp_path / "encoded")
    (folder,) = encode(how, ["semantics"], "fp32")
    compressor = weights.compressor.load(model).eval()
    train = train_of(how)
    found = find_encoding(how.data.latent_cache, "semantics", compressor, train)
    assert found is not None and found.folder == folder and len(found) == len(train)
    for i in range(len(train)):
        with torch.no_grad():
            own = compressor(shrink(train.image(i)[None].float() / 255))
        torch.testing.assert_close(found.rows([i]), (own + 1) / 42, atol=1e-5, rtol=0)
    halves = encode(how, ["semantics"], "fp16")[0]
    assert halves != folder


def test_stage_c_from_encodings_is_stage_c_from_images(
    images: Path, trained: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = settings(images, model, tmp_path / "encoded")
    encode(how, ["semantics"], "fp32")
    plain = Pairs.image

    def of_the_test_split_alone(pairs: Pairs, i: int) -> torch.Tensor:
        assert pairs.split == "test", "a training image was read"
        return plain(pairs, i)

    monkeypatch.setattr(Pairs, "image", of_the_test_split_alone)
    before, after = weights_of(trained), weights_of(training_run.train(how, "c"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        np.testing.assert_allclose(after[name], tensor, atol=2e-4, err_msg=name)


def test_stage_b_reads_latents_and_learns_the_same(
    images: Path, trained: Path, model: Path, tmp_path: Path
) -> None:
    shutil.rmtree(model / "runs" / "b")
    how = settings(images, model, tmp_path / "encoded")
    encode(how, ["latents"], "fp32")
    before, after = weights_of(trained), weights_of(training_run.train(how, "b"))
    for name in (name for name in before if name.startswith("decoder")):
        np.testing.assert_allclose(after[name], before[name], atol=2e-4, err_msg=name)


def test_encodings_of_other_weights_other_cuts_or_other_data_are_not_read(
    images: Path, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wuerstchen")
    how = settings(images, model, tmp_path / "encoded")
    encode(how, ["semantics"], "fp16")
    compressor = weights.compressor.load(model).eval()
    train = train_of(how)
    assert find_encoding(how.data.latent_cache, "semantics", compressor, train) is not None
    other_cut = train_of(settings(images, model, tmp_path, background="black"))
    assert find_encoding(how.data.latent_cache, "semantics", compressor, other_cut) is None
    assert "has other background)" in caplog.text
    copied = Path(shutil.copytree(images, tmp_path / "images"))
    (copied / train[0].key).with_suffix(".txt").write_text("another caption")
    other_data = train_of(settings(copied, model, tmp_path))
    assert find_encoding(how.data.latent_cache, "semantics", compressor, other_data) is None
    assert "has other data)" in caplog.text
    with torch.no_grad():
        next(compressor.parameters()).add_(1e-3)
    assert find_encoding(how.data.latent_cache, "semantics", compressor, train) is None
    assert "has other weights)" in caplog.text


def test_a_killed_encoding_resumes_and_processes_divide_it(
    images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = settings(images, model, tmp_path / "whole")
    monkeypatch.setattr(latent_cache, "CHUNK", 2)
    whole = encode(how, ["semantics"], "fp16")[0]
    shared = settings(images, model, tmp_path / "shared")
    second = Path(shutil.copytree(tmp_path / "whole", tmp_path / "half")) / whole.name
    (second / "encoding.json").unlink()
    (second / "00001.safetensors").unlink()
    (second / ".00001.safetensors.77").write_bytes(b"half")  # of a process that was killed
    encode(settings(images, model, tmp_path / "half"), ["semantics"], "fp16")
    from threading import Thread

    first = Thread(
        target=encode, args=(shared, ["semantics"], "fp16"), kwargs={"rank": 0, "world": 2}
    )
    first.start()
    encode(shared, ["semantics"], "fp16", rank=1, world=2)
    first.join(60)
    for name in sorted(path.name for path in whole.iterdir()):
        content = (whole / name).read_bytes()
        assert (second / name).read_bytes() == content
        assert (tmp_path / "shared" / whole.name / name).read_bytes() == content


HARMS = {
    "cut": lambda folder: _change(folder / "00001.safetensors", lambda whole: whole[:-100]),
    "emptied": lambda folder: _change(folder / "00001.safetensors", lambda whole: b""),
    "rotten": lambda folder: _change(
        folder / "00001.safetensors", lambda whole: whole[:-1] + bytes([whole[-1] ^ 1])
    ),
    "of other rows": lambda folder: shutil.copy(
        folder / "00000.safetensors", folder / "00001.safetensors"
    ),
    "gone": lambda folder: (folder / "00001.safetensors").unlink(),
    "with an altered seal": lambda folder: _change(
        folder / "encoding.json", lambda whole: whole.replace(b'"rows": ', b'"rows": 9')
    ),
    "without a seal": lambda folder: (folder / "encoding.json").write_bytes(b""),
}


@pytest.mark.parametrize(
    ("harm", "finished"),
    [(harm, True) for harm in HARMS] + [(harm, False) for harm in HARMS if harm != "rotten"],
)
def test_damaged_files_are_made_again_and_no_others(
    images: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harm: str,
    finished: bool,
) -> None:
    """Before the seal nothing knows the digests, and what rotted in place is not seen."""
    monkeypatch.setattr(latent_cache, "CHUNK", 2)
    how = settings(images, model, tmp_path / "encoded")
    (folder,) = encode(how, ["semantics"], "fp16")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(before) >= 4
    HARMS[harm](folder)
    if not finished:
        (folder / "encoding.json").unlink()
    kept = (folder / "00000.safetensors").stat().st_mtime_ns
    encode(how, ["semantics"], "fp16", rank=0, world=1)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert (folder / "00000.safetensors").stat().st_mtime_ns == kept


def _change(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def test_a_receipt_counts_the_rows_of_all_processes_once(
    images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second process does its share of three files while the first one waits for it."""
    how = settings(images, model, tmp_path / "shared")
    monkeypatch.setattr(latent_cache, "CHUNK", 3)

    def others(seconds: float) -> None:
        encode(how, ["semantics"], "fp16", rank=1, world=2)

    monkeypatch.setattr("wuerstchen.training.cache_latents.time", SimpleNamespace(sleep=others))
    before = open_receipt(model, Tariff()).total.images
    encode(how, ["semantics"], "fp16", rank=0, world=2)
    assert open_receipt(model, Tariff()).total.images - before == len(train_of(how)) > 6


@pytest.mark.parametrize("harm", [lambda whole: whole[:-100], lambda whole: whole[:-1] + b"\0"])
def test_a_damaged_file_is_named(images: Path, model: Path, tmp_path: Path, harm) -> None:
    how = settings(images, model, tmp_path / "encoded")
    (folder,) = encode(how, ["semantics"], "fp16")
    path = folder / "00000.safetensors"
    whole = path.read_bytes()
    path.write_bytes(harm(whole))
    assert path.read_bytes() != whole
    compressor = weights.compressor.load(model).eval()
    found = find_encoding(how.data.latent_cache, "semantics", compressor, train_of(how))
    assert found is not None
    with pytest.raises(TrainingError, match=rf"{folder}: expected the encodings .* encode` again"):
        found.rows([0])


def test_text_states_are_those_of_the_caption_that_was_drawn(
    images: Path, model: Path, tmp_path: Path
) -> None:
    small_pipeline().save_pretrained(tmp_path / "published")
    text = tmp_path / "published" / "prior_text_encoder"
    for path in (tmp_path / "published" / "prior_tokenizer").iterdir():
        shutil.copy(path, text / path.name)
    base = settings(images, model, tmp_path / "encoded")
    how = base.model_copy(update={"text": base.text.model_copy(update={"pretrained": str(text)})})
    encode(how, ["text"], "fp32")
    encoder = weights.load_clip_text(text, text).eval()
    train = train_of(how)
    found = find_encoding(how.data.latent_cache, "text", encoder, train)
    assert found is not None
    states = TextStates(found, train)
    batch = next(iter(BatchLoader(train, 4, 0, images=False)))
    assert batch.images.numel() == 0
    dropped = [False, True, False, True]
    captions = ["" if drop else text for drop, text in zip(dropped, batch.captions, strict=True)]
    torch.testing.assert_close(
        states.of(batch, dropped), encode_frozen(encoder, captions), atol=1e-5, rtol=1e-5
    )


def test_the_command_says_where_it_wrote_and_what_is_missing(
    images: Path, model: Path, tmp_path: Path
) -> None:
    path = write_config(images, model)
    done = run("encode", path, f"data.latent_cache={tmp_path / 'encoded'}")
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "encoded").iterdir()
    assert done.stdout.split() == [str(folder)] and folder.name.startswith("semantics-")
    for words, sentence in (
        ((), "data.latent_cache is empty"),
        ((f"data.latent_cache={tmp_path}", "--kind", "text"), "set text.pretrained"),
        ((f"data.latent_cache={tmp_path}", "--dtype", "fp8"), "dtype of fp16, fp32, found 'fp8'"),
        ((f"data.latent_cache={tmp_path}", f"output={tmp_path}"), "compressor"),
    ):
        refused = run("encode", path, *words)
        assert refused.returncode == 2 and sentence in refused.stderr
        assert "images checked" not in refused.stderr, "before the data is looked at"


def test_a_killed_process_leaves_nothing_that_counts(
    images: Path, model: Path, tmp_path: Path
) -> None:
    path = write_config(images, model)
    child = start("encode", path, f"data.latent_cache={tmp_path / 'encoded'}")
    while not (tmp_path / "encoded").exists() and child.poll() is None:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert run("encode", path, f"data.latent_cache={tmp_path / 'encoded'}").returncode == 0
    (folder,) = (tmp_path / "encoded").iterdir()
    assert {p.name for p in folder.iterdir() if p.name[0] != "."} == {
        "encoding.json",
        "00000.safetensors",
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"rows": ', '"rows": 1'),
        ('"dtype": "fp16"', '"dtype": "fp32"'),
        ('"what": "semantics"', '"what": "latents"'),
        ('"background": "white"', '"background": "black"'),
        ('"version": 1', '"version": 2'),
        ('"00000.safetensors"', '"00001.safetensors"'),
        ("{", "["),
    ],
    ids=["rows", "dtype", "kind", "inputs", "version", "name of a file", "no JSON"],
)
def test_a_changed_description_is_not_read(
    images: Path,
    model: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    old: str,
    new: str,
) -> None:
    caplog.set_level(logging.INFO, "wuerstchen")
    how = settings(images, model, tmp_path / "encoded")
    (folder,) = encode(how, ["semantics"], "fp16")
    path = folder / "encoding.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    compressor = weights.compressor.load(model).eval()
    assert find_encoding(how.data.latent_cache, "semantics", compressor, train_of(how)) is None
    assert "computed during training" in caplog.text
    (again,) = encode(how, ["semantics"], "fp16")
    assert again == folder and path.read_text() == text
