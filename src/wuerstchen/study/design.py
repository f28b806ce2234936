"""Which images are compared: even over prompts and systems, with repeats and catch pairs."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from wuerstchen.errors import ConfigError
from wuerstchen.study.votes import VoteKind


@dataclass(frozen=True, slots=True)
class Planned:
    """A pair to be shown."""

    prompt: int
    """Index of the prompt."""
    a: str
    b: str
    """Two systems; of a catch pair `b` is empty, for an image without content."""
    kind: VoteKind
    first: int
    """Of a repeat: the index of the pair that it repeats; else its own."""


@dataclass(frozen=True, slots=True)
class Design:
    """The pairs of a study, and those of each rater."""

    pairs: tuple[Planned, ...]
    parts: tuple[tuple[int, ...], ...]
    """Indices of pairs."""


def plan(
    systems: Sequence[str],
    prompts: int,
    *,
    comparisons: int | None,
    per_rater: int | None,
    catch: int,
    repeats: float,
    seed: int,
) -> Design:
    """Choose the pairs.

    comparisons  how many different ones; None for every prompt with every two systems
    per_rater    comparisons of one rater; None for all
    catch        catch pairs of each rater
    repeats      share of a rater's comparisons that are shown once more

    Raises ConfigError if there are not so many.
    """
    rng = random.Random(seed)
    matches = list(combinations(systems, 2))
    most = prompts * len(matches)
    count = most if comparisons is None else comparisons
    if not 1 <= count <= most:
        raise ConfigError(
            f"Expected 1 to {most:,} comparisons of {prompts:,} prompts and {len(systems)} "
            f"systems, found {count:,}; ask for fewer, or add prompts."
        )
    each = min(per_rater or count, count)
    chosen = _even(prompts, matches, count, rng)
    pairs = [Planned(*each_of, "comparison", n) for n, each_of in enumerate(chosen)]
    shares = _split(list(range(count)), each)
    parts = []
    for share in shares:
        part = list(share)
        for first in rng.sample(share, round(repeats * len(share))):
            part.append(len(pairs))
            old = pairs[first]
            pairs.append(Planned(old.prompt, old.a, old.b, "repeat", first))
        for number in range(catch):
            part.append(len(pairs))
            system = systems[number % len(systems)]
            pairs.append(Planned(rng.randrange(prompts), system, "", "catch", len(pairs)))
        parts.append(tuple(part))
    return Design(tuple(pairs), tuple(parts))


def _even(
    prompts: int, matches: Sequence[tuple[str, str]], count: int, rng: random.Random
) -> list[tuple[int, str, str]]:
    """`count` of all combinations; no prompt and no match has two more than another."""
    order = rng.sample(range(prompts), prompts)
    turns = rng.sample(matches, len(matches))
    # Prompts and matches rotate together; once they meet again, the matches are shifted by one.
    again = math.lcm(prompts, len(turns))
    return [(order[n % prompts], *turns[(n + n // again) % len(turns)]) for n in range(count)]


def _split(items: Sequence[int], size: int) -> list[list[int]]:
    """Parts of `size`; the last one is filled from the start."""
    around = [*items, *items]
    return [around[size * n : size * (n + 1)] for n in range(math.ceil(len(items) / size))]
