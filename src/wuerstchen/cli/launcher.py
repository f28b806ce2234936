"""Rank and world size from the environment of a launcher."""

import os

from wuerstchen.errors import ConfigError


def rank_and_world() -> tuple[int, int]:
    """Rank and world size; 0 and 1 without a launcher.

    Raises ConfigError if RANK and WORLD_SIZE in the environment are invalid.
    """
    rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
        raise ConfigError(
            "Expected environment variables RANK from 0 and a larger WORLD_SIZE, as set by "
            f"launchers, found {rank!r} and {world!r}; correct them, or unset both."
        )
    return int(rank), int(world)
