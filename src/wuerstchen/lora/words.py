"""How a command line names a LoRA: PATH or PATH=WEIGHT."""

import math
from pathlib import Path

from wuerstchen.errors import ConfigError


def parse_lora(word: str) -> tuple[Path, float]:
    """`PATH` or `PATH=WEIGHT` to both; the weight is 1 where there is none."""
    path, equals, weight = word.rpartition("=")
    if not equals or Path(word).exists():
        return Path(word), 1.0
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not path or not math.isfinite(number):
        raise ConfigError(
            f"expected a LoRA as PATH or PATH=WEIGHT such as dog.safetensors=0.8, found {word!r}."
        )
    return Path(path), number
