"""Explicit randomness: one stream of noise per image, used by all stages in turn.

A stream is a CPU generator, so a seed gives the same image on every device up to rounding, and
image k of a batch is the image of seed + k alone.
"""

import secrets
from collections.abc import Sequence

import torch
from torch import Tensor

from wuerstchen.errors import ConfigError

SEED_LIMIT = 2**63
"""Seeds are in [0, SEED_LIMIT)."""

RANDOM_SEEDS = 2**32
"""Random seeds are below this, so that other programs that read the metadata accept them."""


class RandomStreams:
    """Random numbers for the B images of a batch, row k from the k-th generator."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = list(generators)

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
        rows = [
            torch.randn(1, *shape, generator=g, device=g.device).to(device) for g in self.generators
        ]
        return torch.cat(rows).to(dtype)

    def uniform(self) -> Tensor:
        """(B,) numbers in [0, 1), on the CPU, where the host can read them without waiting."""
        return torch.cat(
            [torch.rand(1, generator=g, device=g.device).cpu() for g in self.generators]
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
    return RandomStreams([torch.Generator().manual_seed(seed + k) for k in range(count)])


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
) -> RandomStreams:
    """Streams of the caller's generators: one per image, or one for all.

    One for several images, one used before and one listed twice provide new seeds, so that the
    reported seeds generate each image again, alone.
    """
    if not isinstance(given, torch.Generator):
        if len(given) != count:
            raise ConfigError(
                f"generator must be one, or a list of one per image: expected {count}, "
                f"found {len(given)}."
            )
        used = [_was_used(one) or sum(one is other for other in given) > 1 for one in given]
        pairs = zip(given, used, strict=True)
        return RandomStreams([_reseeded(one, 1)[0] if again else one for one, again in pairs])
    return RandomStreams(_reseeded(given, count) if count > 1 or _was_used(given) else [given])


def _was_used(generator: torch.Generator) -> bool:
    """Whether it is no longer in its initial state."""
    fresh = torch.Generator(generator.device).manual_seed(generator.initial_seed())
    return not torch.equal(generator.get_state(), fresh.get_state())


def _reseeded(generator: torch.Generator, count: int) -> list[torch.Generator]:
    """New generators, with seeds from another one."""
    seeds = torch.randint(RANDOM_SEEDS, (count,), generator=generator, device=generator.device)
    return [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]


def mixed(seed: int, place: int) -> int:
    """One 63-bit number per pair; its lower half, which CPU generators use, depends on all bits."""
    both = (seed * 0x9E3779B97F4A7C15 + place * 0xD1B54A32D192ED03 + 1) % 2**64
    both = (both ^ both >> 31) * 0xBF58476D1CE4E5B9 % 2**64
    return (both ^ both >> 30) % 2**63
