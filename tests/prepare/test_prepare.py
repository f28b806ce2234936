"""Laws of preparing: nothing is lost or made up, whatever the source and whoever does the work."""

import gc
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from made_data import write, write_tar
from made_sources import Files, as_bytes, drawing, dropped, report, rows, some
from PIL import Image

from wuerstchen.config import DataConfig, PrepareConfig
from wuerstchen.data import open_pairs
from wuerstchen.errors import DataError, SaveError
from wuerstchen.geometry import Shape, bucket_shapes
from wuerstchen.prepare.images import stored_size
from wuerstchen.prepare.parts import write_rows
from wuerstchen.prepare.prepare import prepare
from wuerstchen.prepare.work_units import digest_of, work_units
from wuerstchen.receipts import Tariff, open_receipt
from wuerstchen.receipts.phases import read_phases

LOSSLESS = PrepareConfig(size=256, format="png", test_fraction=0.25, shard_size=5)


def tars(root: Path, files: Files) -> Path:
    """The same files in two tars."""
    names = sorted(files)
    half = len(names) // 6 * 3
    for number, part in enumerate((names[:half], names[half:])):
        write_tar(root / f"{number:05d}.tar", {name: files[name] for name in part})
    return root


def table(root: Path, files: Files) -> Path:
    lines = [
        {"file_name": name, "text": str(files[f"{name[:-4]}.txt"]).splitlines()}
        | json.loads(str(files[f"{name[:-4]}.json"]))
        for name in sorted(files)
        if name.endswith(".png")
    ]
    images = {name: data for name, data in files.items() if name.endswith(".png")}
    return write(root, {**images, "metadata.jsonl": "\n".join(map(json.dumps, lines))})


@pytest.mark.parametrize("make", [write, tars, table])
def test_a_prepared_set_shows_what_its_source_shows(tmp_path: Path, make) -> None:
    source = make(tmp_path / "source", some(12, width=256, height=256))
    out = prepare(str(source), tmp_path / "out", LOSSLESS)
    config = DataConfig(path=str(source), size=256, test_fraction=0.25)
    plain = open_pairs(config)
    ready = open_pairs(config.model_copy(update={"path": str(out)}))
    for before, after in zip(plain[:2], ready[:2], strict=True):
        assert len(before) == len(after) > 0
        for i in range(len(before)):
            assert (before[i].key, before[i].captions) == (after[i].key, after[i].captions)
            assert torch.equal(before.image(i), after.image(i))
    assert ready[2].train == len(ready[0]) and ready[2].test == len(ready[1])


def test_every_image_is_kept_or_counted_with_its_reason(tmp_path: Path) -> None:
    files = some(6)
    files |= {"no caption.png": as_bytes(drawing(90)), "lonely.txt": "words"}
    files |= {"broken.png": b"not an image", "broken.txt": "broken"}
    files |= {"huge.png": files["000.png"][:16] + b"\0\1\0\0" * 2, "huge.txt": "huge"}
    source = write(tmp_path / "source", files)
    out = prepare(str(source), tmp_path / "out", LOSSLESS)
    found = report(out)
    assert dropped(out) == {
        "image does not decode": 2,
        "image without a caption": 1,
        "caption without an image": 1,
    }
    assert found["found"] == found["kept"] + sum(dropped(out).values()) == 10
    assert found["kept"] == len(rows(out)) == 6
    assert found["dropped"]["caption without an image"]["examples"] == ["lonely.txt"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it closes no file
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_other_readers_of_webdataset_read_the_shards(tmp_path: Path) -> None:
    source = write(tmp_path / "source", some(11))
    out = prepare(str(source), tmp_path / "out", LOSSLESS)
    urls = [str(path) for path in sorted((out / "shards").iterdir())]
    assert len(urls) == 3
    seen = {}
    for sample in webdataset.WebDataset(urls, shardshuffle=False):
        side = json.loads(sample["json"])
        with Image.open(io.BytesIO(sample["png"])) as image:
            seen[side["key"]] = (sample["txt"].decode().splitlines(), image.size)
    gc.collect()  # here, where its warnings are left out
    assert seen == {
        row["key"]: (row["captions"], (row["width"], row["height"])) for row in rows(out)
    }


def test_images_are_made_as_small_as_training_takes_them_and_never_larger(tmp_path: Path) -> None:
    files: Files = {}
    for name, size in {"wide": (900, 450), "tall": (300, 800), "small": (100, 120)}.items():
        files |= {f"{name}.png": as_bytes(drawing(len(files), *size)), f"{name}.txt": name}
    source = write(tmp_path / "source", files)
    config = PrepareConfig(size=256, test_fraction=0)
    by_area = {
        r["key"]: (r["width"], r["height"])
        for r in rows(prepare(str(source), tmp_path / "area", config))
    }
    assert by_area["small.png"] == (100, 120)
    assert by_area["wide.png"] == (512, 256)
    assert by_area["tall.png"] == (256, 683)
    square = config.model_copy(update={"shape": "square"})
    found = rows(prepare(str(source), tmp_path / "square", square))
    assert {(r["width"], r["height"]) for r in found} == {(256, 256), (100, 100)}


@pytest.mark.parametrize("size", [128, 384, 512, 1024])
def test_no_training_at_the_size_enlarges_a_stored_image(size: int) -> None:
    """And one pixel less on a side would not be enough for the square or for the nearest shape."""
    shapes = bucket_shapes(size)
    config = PrepareConfig(size=size)
    for height in range(500, 6000, 173):
        for width in (height // 3, height // 2, height * 9 // 10, height, height * 7 // 4):
            stored = stored_size(width, height, config)
            ratio = np.log(width / height)
            nearest = min(shapes, key=lambda s: abs(np.log(s.width / s.height) - ratio))
            for least in (Shape(size, size), nearest):
                assert stored[0] >= min(width, least.width)
                assert stored[1] >= min(height, least.height)
            assert stored[0] <= width and stored[1] <= height
            slack = (
                min(stored[0] - s.width for s in (shapes[0], nearest)),
                min(stored[1] - s.height for s in (shapes[0], nearest)),
            )
            assert stored == (width, height) or min(slack) <= 0


def test_orientation_is_mended_and_the_size_is_that_of_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    upright = drawing(3, 200, 320)
    data = as_bytes(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=98, exif=exif)
    source = write(tmp_path / "source", {"a.jpg": data, "a.txt": "a"})
    out = prepare(
        str(source), tmp_path / "out", PrepareConfig(size=256, format="png", test_fraction=0)
    )
    (row,) = rows(out)
    assert (
        (row["source_width"], row["source_height"]) == (200, 320) == (row["width"], row["height"])
    )
    (image,) = [open_pairs(DataConfig(path=str(out), size=128, test_fraction=0))[0].image(0)]
    expected = np.asarray(
        upright.crop((0, 60, 200, 260)).resize((128, 128), Image.Resampling.LANCZOS)
    )
    assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - expected).mean() < 4


def test_the_same_key_in_two_tars_names_two_images(tmp_path: Path) -> None:
    for number in range(2):
        files = {"x.png": as_bytes(drawing(number)), "x.txt": str(number)}
        write_tar(tmp_path / "source" / f"{number}.tar", files)
    out = prepare(str(tmp_path / "source"), tmp_path / "out", LOSSLESS)
    assert sorted(row["key"] for row in rows(out)) == ["0/x", "1/x"]


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_as_one_that_never_stopped(tmp_path: Path) -> None:
    source = write(tmp_path / "source", some(60))
    words = ["size=128", "shard_size=4", "format=png"]
    whole = _command(str(source), str(tmp_path / "whole"), *words)
    assert whole.wait(120) == 0
    for _ in range(3):
        child = _command(str(source), str(tmp_path / "out"), *words)
        parts = tmp_path / "out" / "parts"
        before = len(list(parts.glob("*.json")))
        while child.poll() is None and len(list(parts.glob("*.json"))) < before + 3:
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert _command(str(source), str(tmp_path / "out"), *words).wait(120) == 0
    assert _content(tmp_path / "out") == _content(tmp_path / "whole")


def test_processes_share_the_work_and_end_as_one(tmp_path: Path) -> None:
    source = write(tmp_path / "source", some(20))
    words = ["size=128", "shard_size=3", "format=png"]
    assert _command(str(source), str(tmp_path / "one"), *words).wait(120) == 0
    both = [
        _command(str(source), str(tmp_path / "two"), *words, RANK=str(rank), WORLD_SIZE="2")
        for rank in range(2)
    ]
    assert [child.wait(120) for child in both] == [0, 0]
    assert _content(tmp_path / "two") == _content(tmp_path / "one")


def test_a_process_that_helps_waits_for_the_first_and_takes_no_folder_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write(tmp_path / "source", some(4)), tmp_path / "out"

    def leave(seconds: float) -> None:
        raise TimeoutError

    monkeypatch.setattr("wuerstchen.prepare.claim.time.sleep", leave)
    with pytest.raises(TimeoutError):
        prepare(str(source), out, LOSSLESS, rank=1, world=2)
    assert not out.exists()
    nothing = LOSSLESS.model_copy(
        update={"filters": LOSSLESS.filters.model_copy(update={"min_side": 5000})}
    )
    with pytest.raises(DataError, match="found none"):
        prepare(str(source), out, nothing)
    with pytest.raises(DataError, match=r"min_side=5000 .* found filters.min_side=None"):
        prepare(str(source), out, LOSSLESS, rank=1, world=2)


def test_progress_counts_every_image_and_every_shard_once(tmp_path: Path) -> None:
    source = write(tmp_path / "source", some(7))
    told: list[tuple[int, int]] = []
    prepare(
        str(source),
        tmp_path / "out",
        LOSSLESS.model_copy(update={"shard_size": 3}),
        on_progress=lambda images, units: told.append((images, units)),
    )
    assert sum(more for more, _ in told) == 7
    assert sum(more == 0 for more, _ in told) == 3 and {of for _, of in told} == {3}


def test_a_kill_at_the_very_end_leaves_nothing_behind(tmp_path: Path) -> None:
    source = write(tmp_path / "source", some(4))
    out = prepare(str(source), tmp_path / "out", LOSSLESS)
    (out / "parts").mkdir()
    (out / "parts/00000.tar").write_bytes(b"as large as the set")
    prepare(str(source), out, LOSSLESS)
    assert not (out / "parts").exists()


def test_shards_of_a_preparation_that_was_stopped_are_no_failed_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of nine images six stand in whole shards; the third shard is made again."""
    source, out = write(tmp_path / "source", some(9)), tmp_path / "out"
    config = LOSSLESS.model_copy(update={"shard_size": 3})
    wrote: list[Path] = []

    def full(path: Path, table: object) -> bytes:
        wrote.append(path)
        if len(wrote) == 3:
            raise SaveError("full")
        return write_rows(path, table)

    monkeypatch.setattr("wuerstchen.prepare.parts.write_rows", full)
    with pytest.raises(SaveError):
        prepare(str(source), out, config)
    monkeypatch.undo()
    prepare(str(source), out, config)
    lines = {line.kind: line.amounts.images for line in open_receipt(out, Tariff()).lines}
    assert lines == {"preparation": 9, "failed attempts": 3}
    data = {phase.data for phase in read_phases(out)}
    assert data == {digest_of(work_units(str(source), 3)[0])}


def test_a_finished_folder_is_left_alone_and_other_settings_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "source", some(4))
    out = prepare(str(source), tmp_path / "out", LOSSLESS)
    before = _content(out)
    prepare(str(source), out, LOSSLESS)
    assert _content(out) == before
    with pytest.raises(DataError, match=r"expected size=256 .* found size=128"):
        prepare(str(source), out, LOSSLESS.model_copy(update={"size": 128}))
    assert _content(out) == before


def test_a_run_that_was_begun_with_other_settings_names_the_key(tmp_path: Path) -> None:
    source = write(tmp_path / "source", some(4))
    nothing = LOSSLESS.model_copy(
        update={"filters": LOSSLESS.filters.model_copy(update={"min_side": 5000})}
    )
    with pytest.raises(DataError, match="found none of 4; 4 × shorter side under 5000 pixels"):
        prepare(str(source), tmp_path / "out", nothing)
    with pytest.raises(DataError, match=r"filters.min_side=5000 .* found filters.min_side=None"):
        prepare(str(source), tmp_path / "out", LOSSLESS)


def test_a_set_is_of_one_source_alone(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, some(4)) for name in ("first", "second"))
    out = prepare(str(first), tmp_path / "out", LOSSLESS)
    with pytest.raises(DataError, match=r"expected the source .*first .* found .*second"):
        prepare(str(second), out, LOSSLESS)
    assert prepare(f"{first}/../first", out, LOSSLESS) == out


def test_a_link_that_leads_nowhere_is_one_image_less(tmp_path: Path) -> None:
    source = write(tmp_path / "source", some(4))
    (source / "lost.png").symlink_to(tmp_path / "nothing")
    (source / "lost.txt").write_text("an image that went away")
    out = prepare(str(source), tmp_path / "out", LOSSLESS)
    found = json.loads((out / "report.json").read_text())
    assert (found["found"], found["kept"]) == (5, 4)
    assert [each["examples"] for each in found["dropped"].values()] == [["lost.png"]]


def test_a_bad_tar_costs_nothing_but_itself(tmp_path: Path) -> None:
    source = tars(tmp_path / "source", some(4))
    (source / "00001.tar").write_bytes(b"")
    out = prepare(str(source), tmp_path / "out", LOSSLESS)
    assert len(rows(out)) == 2
    found = json.loads((out / "report.json").read_text())
    (name,) = found["dropped"]["not an uncompressed tar"]["examples"]
    assert name.startswith("00001.tar: ")


def test_a_set_is_not_written_among_its_own_images(tmp_path: Path) -> None:
    source = write(tmp_path / "source", some(4))
    for out in (source, source / "out", source / "more" / ".." / "out"):
        with pytest.raises(DataError, match=r"expected a folder outside .*source"):
            prepare(str(source), out, LOSSLESS)
    assert not (source / "out").exists()


def test_a_finished_set_says_that_its_source_has_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write(tmp_path / "source", some(4))
    out = prepare(str(source), tmp_path / "out", LOSSLESS)

    def warnings() -> list[str]:
        caplog.clear()
        prepare(str(source), out, LOSSLESS)
        return [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]

    assert warnings() == []
    write(source, some(1, first=9))
    assert warnings() == [f"{source} has changed since {out} was prepared of it."]
    shutil.rmtree(source)
    assert warnings() == []


def test_words_that_make_no_sense_are_one_sentence(tmp_path: Path) -> None:
    source = str(write(tmp_path / "source", some(2)))
    file = tmp_path / "file"
    file.write_text("mine")
    for words, environment, sentence in (
        ((str(file),), {}, "expected a folder or nothing, found a file"),
        ((str(tmp_path / "out"),), {"RANK": "2", "WORLD_SIZE": "2"}, "found '2' and '2'"),
        ((str(tmp_path / "out"),), {"RANK": "one"}, "found 'one' and '1'"),
        ((str(tmp_path / "out"), "--workers", "0"), {}, "be greater than or equal to 1"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "wuerstchen", "prepare", source, *words],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert sentence in " ".join(done.stderr.split()), done.stderr
    assert file.read_text() == "mine" and not (tmp_path / "out").exists()


def test_a_folder_of_other_things_is_not_touched(tmp_path: Path) -> None:
    source = write(tmp_path / "source", some(2))
    write(tmp_path / "out", {"precious.txt": "mine"})
    with pytest.raises(DataError, match="found other files"):
        prepare(str(source), tmp_path / "out", LOSSLESS)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious.txt"]


def test_images_that_changed_under_way_are_made_again(tmp_path: Path) -> None:
    source = write(tmp_path / "source", some(8))
    child = _command(
        str(source), str(tmp_path / "out"), "size=128", "shard_size=2", "test_fraction=0"
    )
    parts = tmp_path / "out" / "parts"
    while child.poll() is None and not list(parts.glob("00000.json")):
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    write(source, {"000.png": as_bytes(drawing(77)), "000.txt": "another image"})
    assert (
        _command(
            str(source), str(tmp_path / "out"), "size=128", "shard_size=2", "test_fraction=0"
        ).wait(120)
        == 0
    )
    assert next(r for r in rows(tmp_path / "out") if r["key"] == "000.png")["captions"] == [
        "another image"
    ]


def test_the_page_shows_counts_reasons_and_images(tmp_path: Path) -> None:
    files = some(6) | {"copy.png": as_bytes(drawing(0, 300, 300)), "copy.txt": "<b>a copy</b>"}
    source = write(tmp_path / "source", files | {"bad.png": b"x", "bad.txt": "bad"})
    out = prepare(str(source), tmp_path / "out", LOSSLESS)
    page = (out / "report.html").read_text()
    assert "6 of 8 are" in " ".join(page.split()) and "image does not decode" in page
    assert "duplicate with equal pixels" in page and "<b>" not in page
    assert page.count("data:image/jpeg;base64,") >= 8


def test_each_plot_of_the_page_is_a_image_that_a_narrow_window_shows_whole(
    tmp_path: Path,
) -> None:
    files = some(3, width=300) | {"x.png": as_bytes(drawing(9, 200, 400)), "x.txt": "x"}
    out = prepare(str(write(tmp_path / "source", files)), tmp_path / "out", LOSSLESS)
    page = (out / "report.html").read_text()
    plots = re.findall(r'<img class="plot" alt="histogram: ([^"]+)"', page)
    assert {"width", "height", "aspect ratio"} <= set(plots)
    width = re.search(r"\.plot { width: (\d+)px }", page)
    assert width is not None and int(width[1]) < 500 and "max-width: 100%" in page


def _command(*words: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "wuerstchen", "prepare", *words],
        env={**os.environ, **environment},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )


def _content(folder: Path) -> dict[str, bytes]:
    """All files of a prepared set but pages and receipts, which name the time."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in ("report.html", "receipt.html", "receipt.json")
        and path.parent.name not in ("runs", "open")
    }
