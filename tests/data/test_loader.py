"""The stream of images depends on the seed and the position, and on nothing else."""

from collections import Counter
from itertools import islice

import pytest
import torch
from made_data import Sample, write_jsonl

from wuerstchen.config import DataConfig
from wuerstchen.data import Batch, BatchLoader, Pairs, open_pairs
from wuerstchen.errors import TrainingError

GROUPS = {"five": 5, "one": 1, "two": 2}  # members


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Pairs:
    samples = {
        f"{name}{i}": Sample((20 * i, 40, 60), [f"{name} {i} {c}" for c in "xyz"], {"name": name})
        for name, members in GROUPS.items()
        for i in range(members)
    }
    path = write_jsonl(tmp_path_factory.mktemp("data"), samples)
    return open_pairs(DataConfig(path=str(path), test_fraction=0, balance_by="name"))[0]


@pytest.fixture(scope="module")
def single(pairs) -> Pairs:
    """The same images, every one its own group."""
    config = pairs.config.model_copy(update={"balance_by": None})
    return open_pairs(config)[0]


def take(batches: BatchLoader, count: int) -> list[Batch]:
    return list(islice(batches, count))


def drawn(batches: list[Batch]) -> list[tuple[int, str]]:
    return [pair for b in batches for pair in zip(b.indices, b.captions, strict=True)]


def test_a_batch_holds_what_its_indices_name(pairs):
    for batch in take(BatchLoader(pairs, 4, 0), 3):
        assert len(batch) == 4
        assert batch.images.shape == (4, 3, 128, 128) and batch.images.dtype == torch.float32
        for k, index in enumerate(batch.indices):
            assert torch.equal(batch.images[k], pairs.image(index) / 255)
            assert batch.keys[k] == pairs[index].key
            assert batch.captions[k] in pairs[index].captions


def test_white_is_one_and_black_is_zero(tmp_path):
    write_jsonl(tmp_path, {"w": Sample((255,) * 3, ["w"]), "b": Sample((0,) * 3, ["b"])})
    path = str(tmp_path)
    batch = next(iter(BatchLoader(open_pairs(DataConfig(path=path, test_fraction=0))[0], 2, 0)))
    assert {c: batch.images[i].unique().tolist() for i, c in enumerate(batch.captions)} == {
        "w": [1.0],
        "b": [0.0],
    }


@pytest.mark.parametrize("batch", [1, 3, 8, 20])
def test_every_epoch_shows_every_image_once(single, batch):
    stream = [i for i, _ in drawn(take(BatchLoader(single, batch, 1), 40 // batch))]
    epochs = [stream[e : e + 8] for e in range(0, len(stream) - 7, 8)]
    assert epochs
    assert all(sorted(epoch) == list(range(8)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)  # each in an order of its own


def test_a_group_of_five_is_drawn_as_often_as_a_group_of_one(pairs):
    stream = [i for i, _ in drawn(take(BatchLoader(pairs, 30, 2), 30))]
    assert Counter(pairs[i].group for i in stream) == dict.fromkeys(GROUPS, 300)
    five = Counter(i for i in stream if pairs[i].group == "five")
    assert len(five) == 5
    assert all(30 < count < 95 for count in five.values())  # 60 expected, deviation 7


def test_every_caption_of_an_image_takes_part(single):
    stream = drawn(take(BatchLoader(single, 40, 3), 15))  # 75 epochs
    counts = Counter(stream)
    assert len(counts) == 8 * 3
    assert all(8 < count < 50 for count in counts.values())  # 25 expected, deviation 4


@pytest.mark.parametrize("seen", [0, 1, 4, 8, 12, 37])
def test_resuming_anywhere_gives_the_rest_of_the_stream(pairs, seen):
    whole = drawn(take(BatchLoader(pairs, 1, 5), 60))
    rest = drawn(take(BatchLoader(pairs, 4, 5, seen=seen), 5))
    assert rest == whole[seen : seen + 20]


@pytest.mark.parametrize("world", [2, 3, 6])
def test_the_shares_of_all_processes_together_are_the_batch_of_one(pairs, world):
    alone = take(BatchLoader(pairs, 6, 7, seen=5), 4)
    shares = [take(BatchLoader(pairs, 6, 7, rank=r, world=world, seen=5), 4) for r in range(world)]
    for step, batch in enumerate(alone):
        parts = [share[step] for share in shares]
        assert drawn(parts) == drawn([batch])
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)


def test_the_same_seed_gives_the_same_stream_and_another_seed_another(pairs):
    first, again = (drawn(take(BatchLoader(pairs, 8, 9), 4)) for _ in range(2))
    assert first == again
    assert first != drawn(take(BatchLoader(pairs, 8, 10), 4))
    assert first != drawn(take(BatchLoader(pairs, 8, -9), 4))


def test_iterating_again_begins_again(pairs):
    batches = BatchLoader(pairs, 3, 0, seen=6)
    assert drawn(take(batches, 3)) == drawn(take(batches, 3))


def test_batches_without_a_cache_show_the_same_pixels(pairs):
    config = pairs.config.model_copy(update={"cache_gib": 0.0})
    fresh = open_pairs(config)[0]
    for kept, decoded in zip(
        take(BatchLoader(pairs, 5, 0), 3), take(BatchLoader(fresh, 5, 0), 3), strict=True
    ):
        assert torch.equal(kept.images, decoded.images)


def test_a_batch_that_cannot_be_shared_is_an_error(pairs):
    with pytest.raises(TrainingError, match="3 processes can share equally, found 4"):
        BatchLoader(pairs, 4, 0, world=3)


def test_an_empty_split_is_an_error(pairs):
    empty = open_pairs(pairs.config)[1]
    assert len(empty) == 0 and empty.split == "test"
    with pytest.raises(TrainingError, match="test split, found none"):
        BatchLoader(empty, 4, 0)
