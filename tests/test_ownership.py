"""No command replaces or deletes what this project did not write there itself."""

import os
import re
import shutil
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import pytest
from made_data import write
from made_sources import some
from models_small import small_pipeline
from PIL import Image
from small_networks import COMPRESSOR, contents
from small_runs import values, write_config, write_images

from wuerstchen import cli, locks, marks, owned, weights
from wuerstchen.atomic_write import write_new_file
from wuerstchen.config import PrepareConfig, parse
from wuerstchen.data import open_pairs
from wuerstchen.errors import ConfigError, SaveError
from wuerstchen.models.compressor import Compressor
from wuerstchen.prepare.prepare import prepare
from wuerstchen.training import run as training
from wuerstchen.training.checkpoints import Checkpoints
from wuerstchen.weights.files import replacing

FEW = ("--steps", "1", "--decoder-steps", "1")
THESIS = "thesis.txt"


class World(NamedTuple):
    """A folder with images, a model that was not trained here, and a config to train with."""

    folder: Path

    @property
    def files(self) -> dict[str, bytes]:
        return contents(self.folder)

    def run(self, *words: str) -> int:
        """The exit code of a command in this folder."""
        before = sys.argv
        sys.argv = ["wuerstchen", *words]
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0)
        else:
            return 0
        finally:
            sys.argv = before


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_images(folder / "images")
    small_pipeline().save_pretrained(folder / "pub")
    fitting = COMPRESSOR.model_copy(update={"channels": 6})
    weights.compressor.save(folder / "pub", Compressor(fitting))
    shutil.copytree(folder / "pub", folder / "second")
    write_config(folder / "images", folder / "new")  # new.yaml
    return folder


@pytest.fixture
def world(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    folder = Path(shutil.copytree(made, tmp_path / "world"))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("logging.Logger.setLevel", lambda *_: None)  # would outlast the test
    return World(folder)


TRAIN = ("train", "new.yaml", "data.path=images")
EVALUATE = ("evaluate", "pub", "--prompt-file", "prompts.txt")

FOREIGN = [
    # a file of the user, and a command that would have replaced or deleted it
    ("out/parts/engine.step", ("prepare", "images", "out", "size=128")),
    ("out/parts/begun.json", ("prepare", "images", "out", "size=128")),
    ("out/shards/00000.tar", ("prepare", "images", "out", "size=128")),
    ("out/report.html", ("prepare", "images", "out", "size=128")),
    ("out/runs/phases.jsonl", ("prepare", "images", "out", "size=128")),
    ("out/prior/config.json", (*TRAIN, "output=out", "--overwrite")),
    ("out/prior/prior/any.safetensors", ("convert", "pub", "out", "--to", "diffusers")),
    ("out/prior/any.pt", ("convert", "pub", "out", "--to", "original", "--overwrite")),
    ("out/prior/config.json", ("merge", "pub", "second", "out", "--overwrite")),
    (f"out/vqgan/{THESIS}", (*TRAIN, "output=out", "--stage", "a")),
    (f"out/vqgan/{THESIS}", (*TRAIN, "output=out", "--stage", "a", "--overwrite")),
    ("out/vqgan/old/config.json", (*TRAIN, "output=out", "--overwrite")),
    ("out/vqgan/config.json", (*TRAIN, "output=out", "--stage", "a")),
    ("out/decoder/config.json", (*TRAIN, "output=out")),
    ("out/model_index.json", (*TRAIN, "output=out")),
    ("out/wuerstchen.json", (*TRAIN, "output=out")),
    ("out/scheduler/scheduler_config.json", (*TRAIN, "output=out")),
    ("out/runs/b/log.jsonl", (*TRAIN, "output=out")),
    ("out/runs/lock", (*TRAIN, "output=out")),
    (f"pub/vqgan/{THESIS}", (*TRAIN, "output=pub", "--stage", "a", "--overwrite")),
    ("out/vqgan/config.json", ("convert", "pub", "out", "--to", "diffusers")),
    (f"out/vqgan/{THESIS}", ("convert", "pub", "out", "--to", "diffusers", "--overwrite")),
    (f"out/.vqgan.new/{THESIS}", ("convert", "pub", "out", "--to", "diffusers")),
    (f"out/.vqgan.old/{THESIS}", ("convert", "pub", "out", "--to", "diffusers")),
    ("out/stage_a.safetensors", ("convert", "pub", "out", "--to", "original")),
    ("one.safetensors", ("convert", "pub", "one.safetensors", "--to", "single-file")),
    ("out/vqgan/config.json", ("merge", "pub", "second", "out")),
    (f"out/tokenizer/{THESIS}", ("merge", "pub", "second", "out", "--overwrite")),
    ("out/prompts.png", (*EVALUATE, "--out", "out")),
    ("out/evaluation.json", ("evaluate", "pub", "data.path=images", "--out", "out")),
    ("out/diagnosis.html", ("diagnose", "pub", "data.path=images", "--out", "out")),
    ("holiday.png", ("generate", "x", *FEW, "--model", "pub", "--out", "holiday.png")),
]


@pytest.mark.parametrize(("file", "words"), FOREIGN, ids=lambda each: str(each)[:60])
def test_a_foreign_file_is_refused_before_any_work_and_stays(
    world: World, file: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    write(world.folder, {file: "mine", "prompts.txt": "a hat"})
    before = world.files
    assert world.run(*words) == 2
    message = capsys.readouterr().err
    assert message.count("\n") <= 2 and "Traceback" not in message
    first = Path(file).parts[0]
    assert first in message and re.search("move|choose another|--overwrite", message), message
    assert world.files.items() >= before.items()
    assert not [name for name in world.files.keys() - before.keys() if "finished.json" in name]


SAME = [
    (*TRAIN, "base=pub", "output=pub"),
    (*TRAIN, "base=link", "output=pub"),
    (*TRAIN, "base=pub", "output=pub/tuned"),
    (*TRAIN, "base=out/base", "output=out"),
    (*TRAIN, "data.path=pub/images", "output=pub"),
    ("train", "new.yaml", "output=images", "data.path=images/../images"),
    (*TRAIN, "output=out", "data.latent_cache=out/cache"),
    ("prepare", "images", "images/out", "size=128"),
    ("prepare", "images", "linked/out", "size=128"),
    ("convert", "pub", "pub", "--to", "diffusers", "--overwrite"),
    ("convert", "pub", "link", "--to", "diffusers", "--overwrite"),
    ("convert", "pub/vqgan", "pub", "--to", "diffusers", "--overwrite"),
    ("convert", "pub", "pub/inner", "--to", "original"),
    ("convert", "a.safetensors", "b.safetensors", "--to", "single-file", "--overwrite"),
    ("merge", "pub", "second", "pub", "--overwrite"),
    ("merge", "pub", "second", "second", "--overwrite"),
    ("merge", "pub", "second", "./second/inner"),
    ("evaluate", "pub", "data.path=images", "--out", "images"),
    ("evaluate", "pub", "data.path=images", "--out", "link"),
    ("generate", "--from", "x.png", "--model", "pub", "--out", "./x.png"),
]


@pytest.mark.parametrize("words", SAME, ids=" ".join)
def test_an_output_that_is_an_input_is_refused(
    world: World, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    (world.folder / "link").symlink_to("pub")
    (world.folder / "linked").symlink_to("images")
    shutil.copytree("pub", "out/base")
    (world.folder / "out/cache").mkdir()
    shutil.copytree("images", "pub/images")
    if "a.safetensors" in words:
        assert world.run("convert", "pub", "a.safetensors", "--to", "single-file") == 0
        (world.folder / "b.safetensors").hardlink_to("a.safetensors")
    Image.new("RGB", (8, 8)).save("x.png")
    before = world.files
    capsys.readouterr()
    assert world.run(*words) == 2
    assert re.search("outside|contain|itself", capsys.readouterr().err)
    assert world.files == before


def test_a_model_that_was_not_trained_there_is_trained_over_if_that_is_meant(
    world: World,
) -> None:
    few = ("output=pub", "stage_a.training.images=8", "--stage", "a")
    before = world.files
    assert world.run(*TRAIN, *few) == 2, "its weights are not of this training"
    assert world.files == before
    assert world.run(*TRAIN, *few, "--overwrite") == 0
    after = world.files
    assert after["pub/vqgan/config.json"] != before["pub/vqgan/config.json"]
    shutil.rmtree("pub/runs/a")
    assert world.run(*TRAIN, *few) == 0, "what was trained there is trained again"
    shutil.rmtree("pub/runs/a")
    write(world.folder, {"pub/vqgan/config.json": "changed by hand"})
    assert world.run(*TRAIN, *few) == 2
    assert world.files["pub/vqgan/config.json"] == b"changed by hand"
    shutil.rmtree("pub/runs")
    assert world.run(*TRAIN, *few) == 2, "without its runs nothing says who trained it"


def test_a_model_of_an_earlier_version_is_trained_again_without_a_mark(world: World) -> None:
    few = ("output=out", "stage_a.training.images=8", "--stage", "a")
    assert world.run(*TRAIN, *few) == 0
    (world.folder / "out/runs" / marks.MARK).unlink()
    (world.folder / "out/runs/a/finished.json").unlink()
    assert world.run(*TRAIN, *few) == 0


def test_images_around_a_model_folder_stay_the_same_while_it_is_trained(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = Path(shutil.copytree(made / "images", tmp_path / "photos"))
    monkeypatch.chdir(photos)
    raw = values(Path(), Path("models/made"))
    raw["data"] |= {"caption": "a photo of sks dog"}
    raw["stage_a"]["training"] |= {"images": 16, "validate_every": 8, "checkpoint_every": 8}
    config = parse(raw, "made")

    def used() -> int:
        return sum(map(len, open_pairs(config.data)[:2]))

    before = used()
    training.train(config, "a")
    assert list((photos / "models").rglob("*.png")), "grids are among the images"
    assert used() == before
    assert any("models" in name or "made" in name for name in open_pairs(config.data)[2].left_out)


@pytest.mark.parametrize("name", ["../up", "a/b", "/tmp/a", "..", ".", "a\\b", " ", "a\nb"])
def test_the_name_of_a_model_names_no_other_folder(name: str) -> None:
    with pytest.raises(ConfigError, match="plain name"):
        parse({"name": name}, "made")


def test_a_finished_set_keeps_what_its_owner_adds(tmp_path: Path) -> None:
    source = write(tmp_path / "source", some(4))
    config = PrepareConfig(size=128, shard_size=2)
    out = prepare(str(source), tmp_path / "out", config)
    write(out, {"parts/engine.step": "mine", "parts/00000.tar": "mine", "notes.txt": "mine"})
    prepare(str(source), out, config)
    assert (out / "parts/engine.step").read_text() == "mine"
    assert (out / "parts/00000.tar").read_text() == "mine"


def test_a_report_is_replaced_by_the_next_one_and_by_nothing_else(world: World) -> None:
    (world.folder / "prompts.txt").write_text("a hat")
    assert world.run(*EVALUATE, "--out", "out") == 0
    assert world.run(*EVALUATE, "--out", "out") == 0, "it is ours"
    (world.folder / "out/prompts.png").write_bytes(b"mine")
    assert world.run(*EVALUATE, "--out", "out") == 2
    assert (world.folder / "out/prompts.png").read_bytes() == b"mine"
    assert world.run(*EVALUATE, "--out", "out", "--overwrite") == 0


def test_an_image_is_replaced_only_if_that_is_meant(world: World) -> None:
    words = ("generate", "x", *FEW, "--model", "pub", "--out", "x.png")
    assert world.run(*words) == 0
    before = world.files
    assert world.run(*words) == 2 and world.files == before
    assert world.run(*words, "--overwrite") == 0 and world.files.keys() == before.keys()


def test_a_receipt_of_another_origin_stays(world: World) -> None:
    few = ("output=out", "stage_a.training.images=8", "--stage", "a")
    assert world.run(*TRAIN, *few) == 0
    assert world.run("receipt", "out") == 0
    (world.folder / "out/receipt.html").write_text("mine")
    assert world.run("receipt", "out") == 2
    assert (world.folder / "out/receipt.html").read_text() == "mine"


def test_checkpoints_of_others_outlive_the_run(tmp_path: Path) -> None:
    write(
        tmp_path / "checkpoints",
        {
            "000000000016/progress.json": "{}",
            "000000000032/progress.json": "{}",
            f"000000000032/{THESIS}": "mine",
            "2024/photo.safetensors": "mine",
            "best/progress.json": "mine",
        },
    )
    elsewhere = write(tmp_path / "elsewhere", {"progress.json": "mine"})
    (tmp_path / "checkpoints/000000000048").symlink_to(elsewhere)
    Checkpoints(tmp_path, 1).clear()
    kept = contents(tmp_path / "checkpoints")
    assert set(kept) == {
        f"000000000032/{THESIS}",
        "2024/photo.safetensors",
        "best/progress.json",
    }
    assert contents(elsewhere) == {"progress.json": b"mine"}


def test_a_link_is_replaced_and_not_followed(world: World) -> None:
    pictures = write(world.folder / "elsewhere", {"config.json": "mine"})
    (world.folder / "out").mkdir()
    (world.folder / "out/vqgan").symlink_to(pictures)
    assert world.run("convert", "pub", "out", "--to", "diffusers") == 2
    assert world.run("convert", "pub", "out", "--to", "diffusers", "--overwrite") == 0
    assert contents(pictures) == {"config.json": b"mine"}


def test_two_writers_of_one_name_lose_nothing(tmp_path: Path) -> None:
    names = [tmp_path / "x.png", *(tmp_path / f"x-{n}.png" for n in range(2, 9))]
    contents_of = [f"{n}".encode() for n in range(8)]
    start = threading.Barrier(8)

    def one(content: bytes) -> None:
        start.wait()
        assert next(name for name in names if write_new_file(name, content))

    threads = [threading.Thread(target=one, args=(each,)) for each in contents_of]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == contents_of


def test_two_marks_written_at_once_lose_no_line(tmp_path: Path) -> None:
    files = [tmp_path / f"{n}.txt" for n in range(40)]
    for file in files:
        file.write_text(file.name)
    both = [marks.make_mark(tmp_path, "report") for _ in range(2)]
    threads = [
        threading.Thread(target=mark.adopt, args=(files[n::2],)) for n, mark in enumerate(both)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(both[0].wrote(file) for file in files)


def test_a_mark_is_read_in_linear_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed, parse_line = 0, marks.parse_object

    def counted(line: bytes) -> dict[str, object]:
        nonlocal parsed
        parsed += 1
        return parse_line(line)

    monkeypatch.setattr(marks, "parse_object", counted)
    mark = marks.make_mark(tmp_path, "model")
    for number in range(100):
        path = tmp_path / f"{number}"
        path.write_bytes(b"mine")
        owned.record_file(path, path)
        assert mark.wrote(path)
    assert parsed <= 110


def test_a_mark_that_was_edited_or_replaced_is_read_again(tmp_path: Path) -> None:
    mark, file = marks.make_mark(tmp_path, "report"), tmp_path / "a"
    file.write_bytes(b"a")
    mark.adopt([file])
    assert mark.wrote(file)
    path = tmp_path / marks.MARK
    text = path.read_text()
    path.write_text(text.replace('"a"', '"b"'))
    os.utime(path, ns=(1, 1))
    assert not mark.wrote(file)
    path.write_text(text.replace('"a"', '"b"') + text)
    assert mark.wrote(file)
    path.write_text(text.replace('"a"', '"c"') * 3)
    assert not mark.wrote(file) and mark.kind == "report"
    path.unlink()
    assert not mark.wrote(file) and not mark.kind


def test_a_large_file_changed_at_an_end_within_the_resolution_of_time_is_foreign(
    tmp_path: Path,
) -> None:
    mark, file = marks.make_mark(tmp_path, "report"), tmp_path / "large.tar"
    for size in (1, 100, 2**20 + 1, 3 * 2**20):
        file.write_bytes(bytes(size))
        owned.record_file(file, file, read=False)
        time = file.stat().st_mtime_ns
        assert mark.wrote(file)
        for at in (0, size - 1):
            file.write_bytes(bytes(at) + b"x" + bytes(size - at - 1))
            os.utime(file, ns=(time, time))
            assert not mark.wrote(file)


def test_a_folder_that_another_process_writes_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".vqgan.new").mkdir()
    with (
        locks.held(tmp_path / ".vqgan.new"),
        pytest.raises(SaveError, match="Another process is writing"),
        replacing(tmp_path / "vqgan"),
    ):
        pass
