"""Compute to equal score of every trial: `python -m benchmarks.studies.learn_faster.report OUT`.

The target of a stage is the last score of the published recipe, the mean of its seeds. A trial's
compute until it has this score, over the published recipe's compute, is averaged over the seeds in
the logarithm; the interval is Student's, of 95 %.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, ConfigDict
from scipy.stats import t as student

from benchmarks.records import ROOT, Run
from benchmarks.studies.learn_faster.trials import TRIALS
from wuerstchen.atomic_write import write_file
from wuerstchen.errors import DataError
from wuerstchen.parsing import ParseError, parse_model, read_bytes

PAGE = ROOT / "docs/benchmarks/learn_faster.json"

SCORES = {"b": ("psnr_1", "psnr_2", "psnr_12"), "c": ("score",)}
"""What counts, by stage: the best of these."""


class Scored(BaseModel):
    model_config = ConfigDict(frozen=True)
    images: int
    flops: float
    seconds: float
    ema: float
    scores: dict[str, float]


class Result(BaseModel):
    """The file of one trial and seed."""

    model_config = ConfigDict(frozen=True)
    trial: dict[str, str | int | float | list[str]]
    overrides: list[str] | None = None
    """Of all trials; None in files that do not tell."""
    seed: int
    run: Run
    points: list[Scored]

    @property
    def name(self) -> str:
        return str(self.trial["name"])

    @property
    def curve(self) -> list[Scored]:
        """Points of the first EMA."""
        return [point for point in self.points if point.ema == self.points[0].ema]

    def values(self) -> list[float]:
        """What counts, at each point of the curve."""
        keys = SCORES[self.name[0]]
        return [max(point.scores[key] for key in keys) for point in self.curve]


class Row(BaseModel):
    """One trial, all seeds."""

    trial: str
    seeds: int
    last: float
    """Mean of the last score."""
    gigaflops: float
    """Of a training, mean."""
    seconds: float
    """Processor time of a training, mean; the machine was shared."""
    flops_ratio: float | None
    """Compute to the published recipe's score over its compute; None if a seed misses it."""
    interval: tuple[float, float] | None
    images_ratio: float | None
    seconds_ratio: float | None
    reached: int
    """Seeds that reached the score."""


def compute_to_score(
    spent: Sequence[float], values: Sequence[float], target: float
) -> float | None:
    """What was spent until `target`, interpolated in the logarithm; at least the first point's."""
    if values[0] >= target:
        return spent[0]
    for index in range(1, len(values)):
        if values[index] >= target:
            low, high = values[index - 1], values[index]
            share = (target - low) / (high - low)
            return float(spent[index - 1] * (spent[index] / spent[index - 1]) ** share)
    return None


def rows_of(results: Sequence[Result]) -> list[Row]:
    """One for each trial, in the order of `TRIALS`."""
    by_name: dict[str, list[Result]] = {}
    for result in results:
        by_name.setdefault(result.name, []).append(result)
    return [
        _row(by_name[trial.name], by_name[f"{trial.stage}-paper"])
        for trial in TRIALS
        if trial.name in by_name and f"{trial.stage}-paper" in by_name
    ]


def _row(results: Sequence[Result], base: Sequence[Result]) -> Row:
    target = _mean([result.values()[-1] for result in base])
    own = results[0].name == base[0].name  # needs its compute by definition
    ratios: dict[str, list[float]] = {"flops": [], "images": [], "seconds": []}
    for kind, found in ratios.items():
        whole = _mean([float(getattr(result.curve[-1], kind)) for result in base])
        for result in results:
            spent = [float(getattr(point, kind)) for point in result.curve]
            until = spent[-1] if own else compute_to_score(spent, result.values(), target)
            if until is not None:
                found.append(until / whole)
    reached, complete = len(ratios["flops"]), len(ratios["flops"]) == len(results)
    return Row(
        trial=results[0].name,
        seeds=len(results),
        last=_mean([result.values()[-1] for result in results]),
        gigaflops=_mean([result.curve[-1].flops / 1e9 for result in results]),
        seconds=_mean([result.curve[-1].seconds for result in results]),
        flops_ratio=_geometric(ratios["flops"]) if complete else None,
        interval=_interval(ratios["flops"]) if complete and reached > 1 and not own else None,
        images_ratio=_geometric(ratios["images"]) if complete else None,
        seconds_ratio=_geometric(ratios["seconds"]) if complete else None,
        reached=reached,
    )


def _interval(ratios: Sequence[float]) -> tuple[float, float]:
    logs = [math.log(ratio) for ratio in ratios]
    mean = _mean(logs)
    variance = sum((each - mean) ** 2 for each in logs) / (len(logs) - 1)
    half = float(student.ppf(0.975, len(logs) - 1)) * (variance / len(logs)) ** 0.5
    return math.exp(mean - half), math.exp(mean + half)


def _geometric(ratios: Sequence[float]) -> float:
    return math.exp(_mean([math.log(ratio) for ratio in ratios]))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def table(rows: Sequence[Row], results: Sequence[Result]) -> str:
    """Markdown: scores at each fraction, means of the seeds, and what equal scores need."""
    head = ("trial", "seeds", "score at 1/8, 1/4, 1/2, 1", "GFLOP", "s", "operations", "images")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        values = [result.values() for result in results if result.name == row.trial]
        digits = 2 if row.trial.startswith("b") else 3
        scores = " / ".join(f"{_mean(each):.{digits}f}" for each in zip(*values, strict=True))
        ratio, images = f"{row.reached} of {row.seeds} seeds reach it", "-"
        if row.flops_ratio is not None and row.images_ratio is not None:
            ratio = f"{row.flops_ratio:.2f}"
            if row.interval is not None:
                ratio += f" ({row.interval[0]:.2f} to {row.interval[1]:.2f})"
            images = f"{row.images_ratio:.2f}"
        cost = f"{row.gigaflops:.0f} | {row.seconds:.0f}"
        lines.append(f"| `{row.trial}` | {row.seeds} | {scores} | {cost} | {ratio} | {images} |")
    return "\n".join(lines)


def read(folder: Path) -> list[Result]:
    """All results in a folder. Raises DataError for a file that is none."""
    return [_read(path) for path in sorted(folder.glob("[bc]-*.json"))]


def _read(path: Path) -> Result:
    try:
        return parse_model(Result, read_bytes(path))
    except (OSError, ParseError) as error:
        raise DataError(
            f"{path}: expected the result of a trial, found something else ({error}); remove it."
        ) from None


def main(out: Annotated[Path, typer.Argument(help="Folder of the results.")]) -> None:
    """Print the table, and write it with every point to docs/benchmarks/learn_faster.json."""
    results = read(out)
    rows = rows_of(results)
    content = {
        "run": results[0].run.model_dump(),
        "rows": [row.model_dump() for row in rows],
        "curves": {
            f"{result.name}-{result.seed}": [
                [point.images, round(point.flops / 1e9), round(point.seconds, 1), point.ema]
                + [round(value, 4) for value in point.scores.values()]
                for point in result.points
            ]
            for result in results
        },
        "scores": {
            stage: list(of_stage[0].points[0].scores)
            for stage in SCORES
            if (of_stage := [result for result in results if result.name[0] == stage])
        },
    }
    write_file(PAGE, (json.dumps(content) + "\n").encode())
    typer.echo(table(rows, results))


if __name__ == "__main__":
    typer.run(main)
