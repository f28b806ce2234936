"""Laws of duplicates: the same image is dropped, one that only resembles it is kept."""

import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from made_data import write
from made_sources import as_bytes, drawing, dropped, report, rows
from PIL import Image, ImageEnhance

from wuerstchen.config import PrepareConfig
from wuerstchen.prepare.duplicates import MAX_CHROMA_DIFFERENCE, clusters
from wuerstchen.prepare.images import perceptual_hash
from wuerstchen.prepare.prepare import prepare

CONFIG = PrepareConfig(size=128, test_fraction=0)


def jpeg(image: Image.Image, quality: int = 80) -> bytes:
    return as_bytes(image, "JPEG", quality=quality)


def prepared(tmp_path: Path, images: dict[str, bytes], config: PrepareConfig = CONFIG) -> Path:
    captions = {f"{name.rpartition('.')[0]}.txt": name for name in images}
    source = write(tmp_path / "source", {**images, **captions})
    return prepare(str(source), tmp_path / "out", config)


def keys(folder: Path) -> set[str]:
    return {str(row["key"]) for row in rows(folder)}


def test_copies_in_other_sizes_files_and_light_go_and_the_largest_stays(tmp_path: Path) -> None:
    first = drawing(5, 600, 600)
    out = prepared(
        tmp_path,
        {
            "a small.jpg": jpeg(first.resize((200, 200))),
            "b large.png": as_bytes(first),
            "c again.png": as_bytes(first, compress_level=1),
            "d poor.jpg": jpeg(first, 40),
            "e brighter.png": as_bytes(ImageEnhance.Brightness(first).enhance(1.03)),
            "other.png": as_bytes(drawing(6, 600, 600)),
        },
    )
    assert keys(out) == {"b large.png", "other.png"}
    assert dropped(out) == {"near duplicate": 3, "duplicate with equal pixels": 1}
    examples = report(out)["dropped"]["duplicate with equal pixels"]["examples"]
    assert examples == ["c again.png (of b large.png)"]


def test_the_same_drawing_in_another_colour_is_another_image(tmp_path: Path) -> None:
    first = drawing(5)
    turned = np.asarray(first.convert("YCbCr")).copy()
    turned[:, :, 1:] = 255 - turned[:, :, 1:]  # the same light, other colours
    other = Image.fromarray(turned, "YCbCr").convert("RGB")
    out = prepared(tmp_path, {"a.png": as_bytes(first), "b.png": as_bytes(other)})
    assert keys(out) == {"a.png", "b.png"}


def test_different_images_stay(tmp_path: Path) -> None:
    out = prepared(tmp_path, {f"{k}.png": as_bytes(drawing(k)) for k in range(60)})
    assert len(keys(out)) == 60


def test_duplicates_can_be_limited_to_equal_hashes_or_kept(tmp_path: Path) -> None:
    first = drawing(5, 600, 600)
    images = {"a.png": as_bytes(first), "b.png": as_bytes(first), "c.jpg": jpeg(first, 20)}
    nothing = CONFIG.model_copy(update={"duplicate_distance": None})
    assert len(keys(prepared(tmp_path / "1", images, nothing))) == 3
    assert "b.png" not in keys(
        prepared(tmp_path / "2", images, CONFIG.model_copy(update={"duplicate_distance": 0}))
    )


def test_held_out_images_keep_their_copies_out_of_training(tmp_path: Path) -> None:
    small, large = drawing(5, 200, 200), drawing(5, 200, 200).resize((400, 400))
    images = {"train/a.png": as_bytes(large), "test/b.png": as_bytes(small)}
    images |= {f"train/{k}.png": as_bytes(drawing(k)) for k in range(20, 24)}
    out = prepared(tmp_path, images)
    assert "test/b.png" in keys(out) and "train/a.png" not in keys(out)
    assert report(out)["copies_across_splits"] == 1
    assert {row["key"] for row in rows(out) if row["split"] == "test"} == {"test/b.png"}


@pytest.mark.parametrize(("most", "left"), [(None, (1, 1)), (0, (0, 1)), (4, (0, 0))])
def test_copies_that_stay_across_the_splits_are_counted(
    tmp_path: Path, most: int | None, left: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    """One image has equal pixels on both sides, another one nearly so."""
    first, near = drawing(5), drawing(6, 600, 600)
    again = near.resize((160, 160), Image.Resampling.BOX)
    noise = np.random.default_rng(0).integers(-40, 41, (160, 160, 1))
    again = Image.fromarray((np.asarray(again) + noise).clip(0, 255).astype(np.uint8))
    different_bits = perceptual_hash(again) ^ perceptual_hash(near)
    assert 0 < different_bits.bit_count() <= 4, "near, but not equal"
    images = {"train/a.png": as_bytes(first), "test/a.png": as_bytes(first)}
    images |= {"train/b.png": as_bytes(again), "test/b.png": as_bytes(near)}
    images |= {f"train/{k}.png": as_bytes(drawing(k)) for k in range(20, 24)}
    out = prepared(tmp_path, images, CONFIG.model_copy(update={"duplicate_distance": most}))
    found = report(out)
    assert found["copies_across_splits"] == 2
    assert (found["equal_across_splits"], found["near_across_splits"]) == left
    warned = f"{sum(left)} training images are duplicates of held-out ones" in caplog.text
    page = (out / "report.html").read_text()
    assert warned == ("duplicates of held-out images</strong>" in page) == (sum(left) > 0)


def test_shards_hold_no_dead_weight(tmp_path: Path) -> None:
    images = {f"{k}.png": as_bytes(drawing(k % 5, 128, 128)) for k in range(10)}
    out = prepared(tmp_path, images)
    import tarfile

    (shard,) = (out / "shards").iterdir()
    with tarfile.open(shard) as archive:
        names = [member.name for member in archive]
    assert len(names) == 3 * len(rows(out)) == 15


@pytest.mark.parametrize("most", [0, 3, 4, 7, 9])
def test_clusters_are_those_of_comparing_all_with_all(most: int) -> None:
    rng = np.random.default_rng(most)
    seeds = rng.integers(0, 2**63, 40, dtype=np.uint64)
    hashes = np.repeat(seeds, 5)
    for row in range(len(hashes)):  # each differs from its seed in up to 8 bits
        for bit in rng.choice(64, rng.integers(0, 9), replace=False):
            hashes[row] ^= np.uint64(1) << np.uint64(bit)
    levels = rng.integers(0, MAX_CHROMA_DIFFERENCE + 4, (len(hashes), 8), dtype=np.uint8)
    expected = np.arange(len(hashes))
    for i, j in combinations(range(len(hashes)), 2):
        near = int(hashes[i] ^ hashes[j]).bit_count() <= most
        if near and np.abs(levels[i].astype(int) - levels[j]).max() <= MAX_CHROMA_DIFFERENCE:
            expected[expected == expected[j]] = expected[i]
    found = clusters(hashes, levels, most)
    for i, j in combinations(range(len(hashes)), 2):
        assert (found[i] == found[j]) == (expected[i] == expected[j])


def test_a_set_of_one_flat_image_many_times_ends_quickly(tmp_path: Path) -> None:
    flat = np.zeros(50_000, np.uint64)
    assert len(np.unique(clusters(flat, np.zeros((50_000, 32), np.uint8), 4))) == 1
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    assert len(keys(prepared(tmp_path, {f"{k}.png": buffer.getvalue() for k in range(50)}))) == 1
