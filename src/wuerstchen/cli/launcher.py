"""The place of this process among those that a launcher started."""

import os

from wuerstchen.errors import ConfigError


def rank_and_world() -> tuple[int, int]:
    """The number of this process, from 0, and how many there are; 0 and 1 without a launcher.

    Raises ConfigError where RANK and WORLD_SIZE of the environment make no sense.
    """
    rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
        raise ConfigError(
            "The environment: expected a RANK from 0 and a larger WORLD_SIZE, as launchers set "
            f"them, found {rank!r} and {world!r}; correct them, or unset both."
        )
    return int(rank), int(world)
