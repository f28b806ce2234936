"""Laws of aspect-ratio buckets: one shape per batch, every image once per epoch."""

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from made_data import write
from made_sources import as_bytes, drawing

from wuerstchen.config import DataConfig
from wuerstchen.data import Batch, BatchLoader, Pairs, open_pairs, sampler
from wuerstchen.geometry import bucket_shapes, check_size

SIZES = {"square": (400, 400), "wide": (640, 384), "tall": (300, 520)}
COUNTS = {"square": 13, "wide": 6, "tall": 4}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    files: dict[str, bytes | str] = {}
    for kind, count in COUNTS.items():
        for k in range(count):
            files[f"{kind}{k}.png"] = as_bytes(drawing(k, *SIZES[kind]))
            files[f"{kind}{k}.txt"] = f"{kind} {k}"
    source = write(tmp_path_factory.mktemp("data"), files)
    return open_pairs(DataConfig(path=str(source), size=384, buckets=True, test_fraction=0))[0]


def batches(pairs: Pairs, count: int, **options: int) -> list[Batch]:
    return list(islice(BatchLoader(pairs, options.pop("batch", 4), 7, **options), count))


@pytest.mark.parametrize("size", [128, 256, 384, 512, 768, 1024, 1536])
def test_shapes_lie_on_the_grid_and_keep_the_area(size: int) -> None:
    shapes = bucket_shapes(size)
    assert shapes[0] == (size, size) and len(set(shapes)) == len(shapes)
    for shape in shapes:
        check_size(*shape)
        assert abs(shape.height * shape.width / size**2 - 1) <= 0.125
        assert (shape.width, shape.height) in shapes, "every shape exists in portrait and landscape"
    assert len(shapes) >= (7 if size >= 1024 else 1)


def test_images_go_into_the_shape_that_is_nearest_and_are_cut_in_the_middle(pairs: Pairs) -> None:
    shapes = {
        pairs[i].key.rstrip("0123456789.png"): pairs.image(i).shape[1:] for i in range(len(pairs))
    }
    assert shapes == {"square": (384, 384), "wide": (256, 512), "tall": (512, 256)}


def test_every_batch_has_one_shape(pairs: Pairs) -> None:
    seen = {batch.images.shape for batch in batches(pairs, 25)}
    assert seen == {(4, 3, 384, 384), (4, 3, 256, 512), (4, 3, 512, 256)}


@pytest.mark.parametrize("batch", [1, 4, 5])
def test_every_image_comes_once_in_each_epoch_of_its_shape(pairs: Pairs, batch: int) -> None:
    drawn: dict[str, list[str]] = {kind: [] for kind in COUNTS}
    for each in batches(pairs, 200 // batch * 3, batch=batch, images=False):
        for key in each.keys:
            drawn[key.rstrip("0123456789.png")].append(key)
    for kind, count in COUNTS.items():
        epochs = [drawn[kind][k : k + count] for k in range(0, len(drawn[kind]), count)]
        whole = [epoch for epoch in epochs if len(epoch) == count]
        assert len(whole) >= 5 and all(len(set(epoch)) == count for epoch in whole)
        assert len({tuple(epoch) for epoch in whole}) > len(whole) // 2, "shuffled anew"


def test_shapes_with_fewer_images_than_a_batch_are_named_once(
    pairs: Pairs, caplog: pytest.LogCaptureFixture
) -> None:
    sampler._warn_of_repeats.cache_clear()
    for _ in range(2):
        BatchLoader(pairs, 6, 7)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "within a batch of 6" in record.message
    assert "fewer images: 4 of 512 x 256. To" in record.message, "six are enough for six"
    BatchLoader(pairs, 4, 7)
    assert len(caplog.records) == 1


def test_shapes_come_in_proportion_to_their_images(pairs: Pairs) -> None:
    epochs = 8  # of 23 images each, which is 46 batches of 4
    keys = [key for batch in batches(pairs, epochs * 23 // 4, images=False) for key in batch.keys]
    counts = Counter(key.rstrip("0123456789.png") for key in keys)
    for kind, count in COUNTS.items():
        assert abs(counts[kind] - epochs * count) <= 4


def test_processes_and_resuming_change_nothing(pairs: Pairs) -> None:
    whole = batches(pairs, 12)
    shares = [batches(pairs, 12, rank=rank, world=2) for rank in range(2)]
    for k, batch in enumerate(whole):
        assert batch.keys == shares[0][k].keys + shares[1][k].keys
    later = batches(pairs, 5, seen=7 * 4)
    for before, after in zip(whole[7:], later, strict=True):
        assert before.keys == after.keys and torch.equal(before.images, after.images)


def test_images_in_memory_are_those_on_the_disk(pairs: Pairs) -> None:
    fresh, _, _ = open_pairs(pairs.config.model_copy(update={"cache_gib": 0.0}))
    for i in range(0, len(pairs), 5):
        assert torch.equal(pairs.image(i), fresh.image(i))


def test_held_out_images_are_of_the_most_frequent_shape(pairs: Pairs) -> None:
    chosen = pairs.with_most_common_shape(5)
    assert len(chosen) == 5 and {pairs[i].key[:6] for i in chosen} == {"square"}
    assert len(pairs.with_most_common_shape(99)) == COUNTS["square"]


def test_a_prepared_set_has_the_same_shapes(pairs: Pairs, tmp_path: Path) -> None:
    from wuerstchen.config import PrepareConfig
    from wuerstchen.prepare.prepare import prepare

    config = PrepareConfig(size=384, format="png", test_fraction=0, duplicate_distance=None)
    out = prepare(pairs.config.path, tmp_path / "out", config)
    ready, _, _ = open_pairs(pairs.config.model_copy(update={"path": str(out)}))
    before, after = (
        {pair.key: p.shapes[b] for pair, b in zip(p, p.buckets, strict=True)}
        for p in (pairs, ready)
    )
    assert before == after
