"""What images are trained with: their own random numbers, and encodings that are kept."""

import torch
from torch import Tensor

from wuerstchen.data import Batch
from wuerstchen.noise import RandomStreams, folded, global_seed, streams_at
from wuerstchen.training.crops import random_crop, sample_grid
from wuerstchen.training.stage import CachedEncoder

CPU = torch.device("cpu")


def all_of(streams: RandomStreams, like: Tensor) -> list[Tensor]:
    return [streams.uniform(), streams.chosen(0.5), streams(like), streams.uniform()]


def test_an_images_stream_depends_on_seed_and_place_alone() -> None:
    whole = all_of(streams_at(3, range(10, 16)), torch.empty(6, 2, 3))
    for places in ([10, 11], [15, 12, 10], [13]):
        rows = [place - 10 for place in places]
        part = all_of(streams_at(3, places), torch.empty(len(places), 2, 3))
        assert all(torch.equal(a[rows], b) for a, b in zip(whole, part, strict=True))


def test_streams_are_not_alike() -> None:
    first = streams_at(0, range(2000)).uniform()
    assert len(first.unique()) > 1990
    assert abs(first.mean() - 0.5) < 0.03
    assert not torch.equal(first, streams_at(1, range(2000)).uniform())
    assert abs(streams_at(0, range(2000)).chosen(0.3).float().mean() - 0.3) < 0.05


def test_crops_are_parts_of_their_images() -> None:
    image = torch.arange(2 * 3 * 8 * 8).view(2, 3, 8, 8).float()
    cut = random_crop(image, 5, streams_at(0, [1, 2]))
    places = image.unfold(2, 5, 1).unfold(3, 5, 1)  # (2, 3, 4, 4, 5, 5)
    for k in range(2):
        alike = (places[k] == cut[k][:, None, None]).all(dim=(0, 3, 4))
        assert alike.sum() == 1
    assert torch.equal(random_crop(image, 8, streams_at(0, [1, 2])), image)


def test_a_grid_shows_rows_below_each_other() -> None:
    grid = sample_grid([torch.zeros(3, 3, 4, 4), torch.full((3, 3, 4, 4), 2.0)], gap=1)
    assert grid.shape == (3, 12, 18)
    assert grid[:, 1:5, 1:5].max() == 0 and grid.max() == 1


def batch_of(indices: list[int]) -> Batch:
    images = torch.stack([torch.full((3, 4, 4), float(i)) for i in indices])
    return Batch(images, ["" for _ in indices], [str(i) for i in indices], indices)


class Counted:
    def __init__(self) -> None:
        self.encoded: list[int] = []

    def __call__(self, image: Tensor) -> Tensor:
        self.encoded += image[:, 0, 0, 0].int().tolist()
        return 2 * image


def test_a_cache_gives_what_encoding_gives_and_encodes_once() -> None:
    encode = Counted()
    cache = CachedEncoder(encode, 1)
    for indices in ([1, 2], [2, 3], [3, 1], [4, 4]):
        batch = batch_of(indices)
        assert torch.equal(cache(batch, CPU), 2 * batch.images)
    assert sorted(set(encode.encoded)) == [1, 2, 3, 4]
    assert encode.encoded[:3] == [1, 2, 3]


def test_a_cache_without_memory_keeps_nothing() -> None:
    encode = Counted()
    cache = CachedEncoder(encode, 0)
    for _ in range(2):
        assert torch.equal(cache(batch_of([1, 2]), CPU), 2 * batch_of([1, 2]).images)
    assert encode.encoded == [1, 2, 1, 2]


def test_a_cache_keeps_what_fits() -> None:
    encode = Counted()
    cache = CachedEncoder(encode, 2.5 * 3 * 4 * 4 * 4 / 2**30)
    for _ in range(2):
        cache(batch_of([1, 2, 3]), CPU)
    assert encode.encoded == [1, 2, 3, 3]


def test_seeds_of_all_sizes_differ_in_training_too() -> None:
    seeds = [5, 5 + 2**32, 5 + 2**33, 5 + 2**62, 2**63 - 1]
    low = [{f(seed) % 2**32 for seed in seeds} for f in (folded, lambda s: global_seed(s, 640))]
    assert [len(each) for each in low] == [len(seeds)] * 2, "torch reads the lower 32 bits"
    drawn = {streams_at(seed, [3]).uniform().item() for seed in seeds}
    assert len(drawn) == len(seeds)
    assert folded(2**32 - 1) == 2**32 - 1 and global_seed(7, 64) == 7 * 1_000_003 + 64
