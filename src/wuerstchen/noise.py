"""Explicit randomness: one stream of noise per image, used by all stages in turn.

A stream is a CPU generator, so a seed gives the same image on every device up to rounding, and
image k of a batch is the image of seed + k alone.
"""

import secrets
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wuerstchen.config import SEED_LIMIT
from wuerstchen.errors import ConfigError

TORCH_SEEDS = 2**32
"""Of a seed, a CPU generator of torch reads the lower 32 bits alone."""

RANDOM_SEEDS = 2**32
"""Random seeds are below this, so that other programs that read the metadata accept them."""

STATE_WORDS = slice(3, 3 + 624)
"""Where the state of a CPU generator of torch, as 64-bit numbers, has the words of its MT19937."""


class RandomStreams:
    """Random numbers for the B images of a batch, row k from the k-th generator.

    A single generator draws the rows of all images at once, as in diffusers.
    """

    def __init__(self, generators: Sequence[torch.Generator], count: int | None = None) -> None:
        """count: B, where one generator serves several images."""
        self.generators = list(generators)
        self.rows = len(self.generators) if count is None else count

    @property
    def seeds(self) -> list[int]:
        """The seed of each generator."""
        return [generator.initial_seed() for generator in self.generators]

    def __call__(self, x: Tensor) -> Tensor:
        """Noise of the shape, dtype and device of (B, ...) x."""
        return self.normal(tuple(x.shape[1:]), x.device, x.dtype)

    def normal(
        self, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """(B, *shape) noise, generated in fp32 so that it does not depend on `dtype`."""
        each = self.rows // len(self.generators)
        rows = [
            torch.randn(each, *shape, generator=g, device=g.device).to(device)
            for g in self.generators
        ]
        return torch.cat(rows).to(dtype)

    def uniform(self) -> Tensor:
        """(B,) numbers in [0, 1), on the CPU, where the host can read them without waiting."""
        each = self.rows // len(self.generators)
        return torch.cat(
            [torch.rand(each, generator=g, device=g.device).cpu() for g in self.generators]
        )

    def chosen(self, probability: float) -> Tensor:
        """(B,), true for each image with this probability; on the CPU."""
        return self.uniform() < probability


def seeded(seed: int | None, count: int) -> RandomStreams:
    """Streams of the seeds seed, seed + 1, ...; None and -1 stand for a random seed.

    Raises ConfigError for what is no seed.
    """
    if seed is None or seed == -1:
        seed = secrets.randbelow(RANDOM_SEEDS)
    check_seed(seed, count)
    return RandomStreams([generator_of(seed + k) for k in range(count)])


def generator_of(seed: int) -> torch.Generator:
    """A CPU generator with a stream of its own for every seed in [0, SEED_LIMIT).

    Below 2^32 it is torch's; above, MT19937 is initialised by both halves of the seed as its
    authors do it by an array (`init_by_array`), where torch would repeat the stream of the lower.
    """
    generator = torch.Generator().manual_seed(seed)
    if seed >= TORCH_SEEDS:
        halves = np.random.RandomState([seed % TORCH_SEEDS, seed // TORCH_SEEDS])
        words = np.asarray(halves.get_state(legacy=False)["state"]["key"], dtype=np.int64)
        state = generator.get_state()
        state.view(torch.int64)[STATE_WORDS] = torch.from_numpy(words)
        generator.set_state(state)
    return generator


def folded(seed: int) -> int:
    """A seed below 2^32, for what takes no larger one; those below are as they are."""
    return seed if seed < TORCH_SEEDS else mixed(seed, 0) % TORCH_SEEDS


def global_seed(seed: int, place: int) -> int:
    """A seed for torch's own generators at a place of a training run."""
    return (seed * 1_000_003 + place) % 2**63 if seed < TORCH_SEEDS else mixed(seed, place)


def streams_at(seed: int, positions: Sequence[int]) -> RandomStreams:
    """Streams of the images at these positions of a training run, by seed and position alone.

    So resuming, another batch size or more processes do not change what an image is trained with.
    """
    return RandomStreams([torch.Generator().manual_seed(mixed(seed, at)) for at in positions])


def check_seed(seed: int | None, count: int) -> None:
    """Raise ConfigError unless seed, seed + 1, ... can be the seeds of `count` images."""
    if seed is None or seed == -1:
        return
    if not isinstance(seed, int) or not 0 <= seed <= SEED_LIMIT - count:
        raise ConfigError(
            f"seed must be a whole number between 0 and {SEED_LIMIT - count}, or -1 for a random "
            f"one, found {seed}."
        )


def from_generators(
    given: torch.Generator | Sequence[torch.Generator], count: int
) -> tuple[RandomStreams, list[int | None]]:
    """Streams of the caller's generators, which draw what they draw in diffusers; and seeds.

    given  one per image, or one for all, whose images are drawn together

    A seed is None for an image that no seed generates again: of a generator that was used before,
    is listed twice, or serves several images.
    """
    generators = [given] if isinstance(given, torch.Generator) else list(given)
    if len(generators) == 1 and count > 1:
        return RandomStreams(generators, count), [None] * count
    if len(generators) != count:
        raise ConfigError(
            f"generator must be one, or a list of one per image: expected {count}, "
            f"found {len(generators)}."
        )
    alone = [sum(one is other for other in generators) == 1 for one in generators]
    return RandomStreams(generators), [
        _seed_of(one) if once else None for one, once in zip(generators, alone, strict=True)
    ]


def _seed_of(generator: torch.Generator) -> int | None:
    """The seed whose stream the generator is at the start of; None if it was used before."""
    seed = generator.initial_seed()
    if generator.device.type != "cpu":
        fresh = torch.Generator(generator.device).manual_seed(seed)
        return seed if torch.equal(generator.get_state(), fresh.get_state()) else None
    state = generator.get_state().view(torch.int64)[1:]  # without the seed, which it also has
    for candidate in dict.fromkeys((seed % TORCH_SEEDS, seed)):
        if candidate < SEED_LIMIT:
            fresh_state = generator_of(candidate).get_state().view(torch.int64)[1:]
            if torch.equal(state, fresh_state):
                return candidate
    return None


def mixed(seed: int, place: int) -> int:
    """One 63-bit number per pair; its lower half, which CPU generators use, depends on all bits."""
    both = (seed * 0x9E3779B97F4A7C15 + place * 0xD1B54A32D192ED03 + 1) % 2**64
    both = (both ^ both >> 31) * 0xBF58476D1CE4E5B9 % 2**64
    return (both ^ both >> 30) % 2**63
