"""Scores with intervals, beside those of real images, as JSON, table and page."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from PIL import Image
from pydantic import JsonValue

from wuerstchen import __version__
from wuerstchen.atomic_write import write_file
from wuerstchen.evaluation.bootstrap import paired_ratio
from wuerstchen.evaluation.grid import labelled_grid, png_bytes, save_image
from wuerstchen.evaluation.metrics import Estimate, fraction_estimate
from wuerstchen.evaluation.stickers.prompts import Set
from wuerstchen.evaluation.stickers.reading import Verdict
from wuerstchen.html_page import html_image, html_page, html_table

FILES = ("scores.json", "scores.html", "nearest.png")
"""What `Scores.save` writes."""

KINDS: dict[str, tuple[str, tuple[Set, ...], str]] = {
    "object": ("Training cells: object", ("training",), "object"),
    "object_first_five": ("  object among the judge's first five", ("training",), "first_five"),
    "style": ("Training cells: style", ("training",), "style"),
    "both": ("Training cells: object and style", ("training",), "both"),
    "background": ("Background colour", ("training", "held-out"), "background"),
    "count": ("Count, of two to four", ("several",), "count"),
    "relation": ("Relation of two", ("pair",), "relation"),
    "two_objects": ("Both of two objects", ("pair",), "objects"),
    "held_out_object": ("Held-out cells: object", ("held-out",), "object"),
    "held_out_first_five": (
        "  object among the judge's first five",
        ("held-out",),
        "first_five",
    ),
    "held_out_style": ("Held-out cells: style", ("held-out",), "style"),
    "held_out_both": ("Held-out cells: object and style", ("held-out",), "both"),
}
"""Of each score: its title, the sets of prompts, and the field of the verdicts."""

OUTCOMES = ("both right", "object only", "style only", "neither")
"""Of held-out cells."""


@dataclass(frozen=True, slots=True)
class Score:
    """How often a criterion is met."""

    drawn: Estimate
    real: Estimate
    """On real images of the same prompts: what the judge itself gets right, the ceiling."""

    share: Estimate | None
    """Drawn over real, by a bootstrap over prompts; None if the judge finds nothing right."""


@dataclass(frozen=True, slots=True)
class Distances:
    """Between features of drawn and real images; those of two real sets are what chance gives."""

    frechet: float
    frechet_of_real: float
    mind: float
    mind_of_real: float
    n: int


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The training sticker nearest to a drawn image."""

    prompt: str
    sticker: str
    """Its key."""
    similarity: float
    """Cosine: near 1 for copies."""


@dataclass(frozen=True)
class Similar:
    """Nearest training stickers of the drawn images of single stickers."""

    drawn: float
    """Mean similarity of the images of held-out cells."""
    real: float
    """The same for real stickers of these cells, none of which is in training."""
    copies: Estimate
    """Images of held-out cells that are more similar than 95 % of the real ones: chance is 5 %."""
    neighbours: Mapping[Set, Sequence[Neighbour]] = field(default_factory=dict)
    """Of training and held-out cells."""
    images: Sequence[Image.Image] = field(default_factory=list)
    labels: Sequence[str] = field(default_factory=list)


@dataclass(frozen=True)
class Scores:
    """Everything that was measured on one model."""

    scores: Mapping[str, Score]
    outcomes: Mapping[str, Mapping[str, Estimate]]
    """Fractions of `OUTCOMES` by drawn and real."""
    distances: Distances
    similar: Similar

    def to_json(self, settings: Mapping[str, str | int | float]) -> str:
        """`content` with the version and the settings."""
        whole = {"version": __version__, "settings": dict(settings), **self.content()}
        return json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def content(self) -> dict[str, JsonValue]:
        """Fractions, n images and 95 % intervals: Wilson's, and by a bootstrap of the shares."""
        return {
            "scores": {name: asdict(score) for name, score in self.scores.items()},
            "held_out_outcomes": {
                name: {outcome: asdict(found) for outcome, found in fractions.items()}
                for name, fractions in self.outcomes.items()
            },
            "distances": asdict(self.distances),
            "nearest_training_sticker": {
                "drawn": self.similar.drawn,
                "real": self.similar.real,
                "copies": asdict(self.similar.copies),
                "of_each": {
                    name: [asdict(each) for each in found]
                    for name, found in self.similar.neighbours.items()
                },
            },
        }

    def rows(self) -> list[list[str]]:
        """The table of scores, first its header."""
        table = [["", "drawn", "95 %", "real", "95 %", "share", "95 %", "n"]]
        for name, score in self.scores.items():
            drawn, share = score.drawn, score.share
            table.append(
                [
                    KINDS[name][0],
                    _percent(drawn.value),
                    _interval(drawn),
                    _percent(score.real.value),
                    _interval(score.real),
                    "-" if share is None else _percent(share.value),
                    "-" if share is None else _interval(share),
                    str(drawn.n),
                ]
            )
        return table

    def outcome_rows(self) -> list[list[str]]:
        """The table of held-out cells, first its header."""
        rows = [["Held-out cells", "drawn", "95 %", "real", "95 %", "n"]]
        for outcome in OUTCOMES:
            drawn, real = (self.outcomes[name][outcome] for name in ("drawn", "real"))
            figures = (_percent(drawn.value), _interval(drawn), _percent(real.value))
            rows.append([outcome, *figures, _interval(real), str(drawn.n)])
        return rows

    def distance_rows(self) -> list[list[str]]:
        """The table of distances, first its header."""
        found = self.distances
        return [
            ["", "drawn", "real"],
            ["Fréchet distance", f"{found.frechet:.2f}", f"{found.frechet_of_real:.2f}"],
            ["MIND", f"{found.mind:.3f}", f"{found.mind_of_real:.3f}"],
            [
                "Similarity to the nearest training sticker",
                f"{self.similar.drawn:.3f}",
                f"{self.similar.real:.3f}",
            ],
            [
                f"More similar than 95 % of the real ones, % (n = {self.similar.copies.n})",
                _percent(self.similar.copies.value),
                "5.0",
            ],
        ]

    def lines(self) -> Iterator[str]:
        """All tables for a terminal."""
        for table in (self.rows(), self.outcome_rows(), self.distance_rows()):
            widths = [max(len(row[k]) for row in table) for k in range(len(table[0]))]
            for row in table:
                cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
                yield "  ".join([row[0].ljust(widths[0]), *cells]).rstrip()
            yield ""

    def save(self, folder: Path, settings: Mapping[str, str | int | float]) -> list[Path]:
        """Write `FILES` into `folder`; returns their paths. Raises SaveError."""
        paths = [folder / name for name in FILES]
        rows = [["setting", "value"], *([k, str(v)] for k, v in settings.items())]
        write_file(paths[0], self.to_json(settings).encode())
        write_file(paths[1], html_page("Scores on stickers", html_table(rows) + self.html()))
        save_image(paths[2], self.nearest_grid())
        return paths

    def nearest_grid(self) -> Image.Image:
        """Drawn images of single stickers, each beside the nearest training sticker."""
        return labelled_grid(self.similar.images, self.similar.labels, columns=8)

    def html(self) -> str:
        """All tables and the grid, for a page."""
        grid = png_bytes(self.nearest_grid())
        return "\n".join(
            [
                "<h2>Scores</h2>",
                html_table(self.rows()),
                "<p>In percent. Real images of the same prompts are judged the same way: they are "
                "what the judge can find. Share is drawn over real; its interval is by a paired "
                "bootstrap over prompts. No image is judged by heads "
                "that have seen the sticker of its prompt.</p>",
                html_table(self.outcome_rows()),
                "<h2>Distances</h2>",
                html_table(self.distance_rows()),
                f"<p>Of {self.distances.n} images. Real: between two sets of real images.</p>",
                "<h2>Held-out and training cells, each beside the nearest training sticker</h2>",
                html_image(grid, "png", "drawn and nearest"),
            ]
        )


def tabulate(
    drawn: Mapping[Set, Sequence[Verdict]],
    real: Mapping[Set, Sequence[Verdict]],
    distances: Distances,
    similar: Similar,
) -> Scores:
    """Scores from the verdicts on drawn and real images of the same prompts."""
    scores = {
        name: _score(_answers(drawn, sets, criterion), _answers(real, sets, criterion))
        for name, (_, sets, criterion) in KINDS.items()
    }
    outcomes = {
        "drawn": _outcomes(drawn["held-out"]),
        "real": _outcomes(real["held-out"]),
    }
    return Scores(scores, outcomes, distances, similar)


def _answers(
    verdicts: Mapping[Set, Sequence[Verdict]], sets: Sequence[Set], criterion: str
) -> list[bool]:
    return [bool(getattr(verdict, criterion)) for name in sets for verdict in verdicts[name]]


def _score(drawn: Sequence[bool], real: Sequence[bool]) -> Score:
    return Score(
        fraction_estimate(sum(drawn), len(drawn)),
        fraction_estimate(sum(real), len(real)),
        paired_ratio(torch.tensor(real), torch.tensor(drawn)),
    )


def _outcomes(verdicts: Sequence[Verdict]) -> dict[str, Estimate]:
    found = [(bool(verdict.object), bool(verdict.style)) for verdict in verdicts]
    kinds = ((True, True), (True, False), (False, True), (False, False))
    return {
        outcome: fraction_estimate(found.count(kind), len(found))
        for outcome, kind in zip(OUTCOMES, kinds, strict=True)
    }


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _interval(estimate: Estimate) -> str:
    return f"{_percent(estimate.low)} to {_percent(estimate.high)}"
