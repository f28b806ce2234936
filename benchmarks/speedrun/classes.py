"""The classes that runs are compared in: hardware, recipe and clock.

docs/speedrun.md has the rules, and the sum of parts that leaves a laptop 3,000 seconds of training.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HERE = Path(__file__).parent

ClassName = Literal["laptop", "h100"]

Seconds = tuple[float, float, float]
"""Of Stages A, B and C."""


@dataclass(frozen=True, kw_only=True)
class Class:
    """What all runs of a class share, unless an option changes it."""

    hardware: str
    config: Path
    """Sizes and training of the three stages."""
    scenes: int
    """Composed training scenes."""
    seconds: Seconds
    """Of training."""
    limit: float
    """Seconds from the start of the process until the scores are written."""
    judged: int
    """Images that are drawn and judged for each set of prompts, if there is time."""
    compiled: bool


CLASSES: dict[ClassName, Class] = {
    "laptop": Class(
        hardware="two CPU cores",
        config=HERE / "laptop.yaml",
        scenes=16_000,
        seconds=(500, 1450, 1050),
        limit=3600,
        judged=100,
        compiled=False,
    ),
    "h100": Class(
        hardware="one H100 and 16 CPU cores",
        config=HERE / "h100.yaml",
        scenes=140_000,
        seconds=(120, 345, 325),
        limit=1200,
        judged=100,
        compiled=True,
    ),
}
