"""What a measurement writes: figures, and the protocol that they can be compared under."""

import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from wuerstchen import __version__
from wuerstchen.atomic_write import write_file
from wuerstchen.evaluation.distances.spread import Spread

FILE = "distance.json"

Setting = str | int | float | bool | None
"""A value of a protocol card."""

TITLES = {
    "frechet": "Fréchet distance",
    "kid": "KID",
    "mind": "MIND",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "inception_score": "Inception Score",
    "inception_score_of_real": "Inception Score of the real images",
}

HIGHER = frozenset(TITLES) - {"frechet", "kid", "mind"}
"""Figures of which more is better."""


def versions() -> dict[str, Setting]:
    """Of what the figures were computed with."""
    return {
        "wuerstchen": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "pillow")},
    }


@dataclass(frozen=True)
class Record:
    """Figures with their protocol card."""

    protocol: Mapping[str, Setting]
    """How it was measured; figures are comparable if all of it is the same."""
    drawn: Mapping[str, Setting]
    """What was measured: the images, and how a model drew them. It may differ in a comparison."""
    figures: Mapping[str, Spread]
    seconds: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        content = {
            "kind": "distance",
            "protocol": dict(self.protocol),
            "drawn": dict(self.drawn),
            "versions": versions(),
            "figures": {name: asdict(figure) for name, figure in self.figures.items()},
            "seconds": {name: round(seconds, 3) for name, seconds in self.seconds.items()},
        }
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def save(self, folder: Path) -> Path:
        """Write distance.json; raises SaveError."""
        path = folder / FILE
        write_file(path, self.to_json().encode())
        return path

    def lines(self) -> Iterator[str]:
        """A table for people, one line per figure, then the protocol in short."""
        for name, figure in self.figures.items():
            spread = "" if figure.spread is None else f"± {figure.spread:.4g}"
            better = "higher is better" if name in HIGHER else "lower is better"
            yield f"{TITLES[name]:36} {figure.value:10.5g} {spread:12} {better}"
        card = self.protocol
        size = f", at {card['size']} pixels" if card["size"] else ""
        yield (
            f"{card['n_real']} real and {card['n_drawn']} drawn images, {card['features']} "
            f"({card['layer']}), {card['filter']}, crop {card['crop']}{size}"
        )
