"""Reproducible random choices, seeded by a few integers."""

from collections.abc import Sequence
from typing import TypeVar, final

import numpy as np

Choice = TypeVar("Choice")


@final
class RandomChoices:
    """A stream of random choices; the same integers give the same stream.

    It uses only NumPy's uniform floats, whose stream is the same in all versions.
    """

    def __init__(self, *seeds: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seeds)))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        return low + (high - low) * float(self._generator.random())

    def below(self, limit: int) -> int:
        """An integer in [0, limit)."""
        return int(self.uniform() * limit)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.uniform() < probability

    def pick(self, choices: Sequence[Choice]) -> Choice:
        """One of the choices, all equally likely."""
        return choices[self.below(len(choices))]

    def shuffled(self, choices: Sequence[Choice]) -> list[Choice]:
        """All choices in random order."""
        order = sorted((self.uniform(), index) for index in range(len(choices)))
        return [choices[index] for _, index in order]
