"""Laws of preparation: nothing is lost or made up, whatever the source."""

import gc
import io
import json
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
from wuerstchen.geometry import Shape, bucket_shapes
from wuerstchen.prepare.images import stored_size
from wuerstchen.prepare.prepare import prepare

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
