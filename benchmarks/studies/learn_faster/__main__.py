"""Run trials of recipes for Stages B and C; each result is a file, and existing ones are kept.

    python -m benchmarks.studies.learn_faster STICKERS --out OUT --only c-paper,c-today

STICKERS is a folder of sticker tars. OUT receives the encodings, once, and TRIAL-SEED.json for
every trial and seed. `python -m benchmarks.studies.learn_faster.report OUT` compares them.
"""

import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.records import this_run
from benchmarks.studies.learn_faster.encoded import Sizes, Split, load_or_encode
from benchmarks.studies.learn_faster.probes import Probes
from benchmarks.studies.learn_faster.report import read
from benchmarks.studies.learn_faster.stage_b import StageBLearner, score_stage_b
from benchmarks.studies.learn_faster.stage_c import (
    Space,
    StageCLearner,
    TextLearner,
    score_stage_c,
    text_encoder,
)
from benchmarks.studies.learn_faster.train import Point, Spent, train
from benchmarks.studies.learn_faster.trials import TRIALS, Trial
from wuerstchen import weights
from wuerstchen.atomic_write import write_file
from wuerstchen.config import Config, load
from wuerstchen.display import printable
from wuerstchen.errors import DataError, WuerstchenError
from wuerstchen.models.stage_a import StageA

BASE = Path(__file__).with_name("base.yaml")

SIZES = Sizes(objects=48, styles=4, scenes=5000, prompts=192, latents=1280, pictures=16)

app = typer.Typer(add_completion=False)


@app.command()
def run_trials(
    stickers: Annotated[Path, typer.Argument(help="Folder of the sticker tars.")],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    model: Annotated[str, typer.Option(help="Model that encodes the scenes.")] = "stickers",
    only: Annotated[str, typer.Option(help="Names of trials; empty: all.")] = "",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each trial, from 0.")] = 3,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Config values of all trials.")
    ] = None,
) -> None:
    """Run the trials that OUT has no result of on one thread, seed by seed."""
    _check(out, overrides or [])
    torch.set_num_threads(1)
    splits = load_or_encode(stickers, model, SIZES, out / "encoded")
    probes = Probes(splits["train"].semantics, splits["train"].labels)
    for name in ("test", "held-out"):
        right = probes.right(splits[name].semantics, splits[name].labels)
        typer.echo(f"probes on true semantics, {name}: {right}")
    stage_a = weights.stage_a.load(Path(weights.find(model)))
    names = {name for name in only.split(",") if name}
    chosen = [trial for trial in TRIALS if not names or trial.name in names]
    for seed, trial in itertools.product(range(seeds), chosen):
        path = out / f"{trial.name}-{seed}.json"
        if path.exists():
            continue
        config = load(str(BASE), [*trial.overrides, f"seed={seed}", *(overrides or [])])
        points = list(_run(trial, config, splits, probes, stage_a))
        record = {
            "trial": asdict(trial),
            "overrides": overrides or [],
            "seed": seed,
            "run": this_run("study").model_dump(),
            "points": [asdict(point) for point in points],
        }
        write_file(path, (json.dumps(record, indent=1) + "\n").encode())
        typer.echo(f"{path.name}: {points[-1]}")


def _check(out: Path, overrides: list[str]) -> None:
    """Raises DataError if a result in the folder is of another recipe."""
    trials = {trial.name: json.loads(json.dumps(asdict(trial))) for trial in TRIALS}
    for result in read(out):
        place = f"{out / result.name}-{result.seed}.json"
        if result.overrides != overrides:
            found = "an unknown --set" if result.overrides is None else _named(result.overrides)
            raise DataError(
                f"{place}: expected a result with {_named(overrides)}, found one "
                f"with {found}; name another folder with --out."
            )
        if result.trial != trials.get(result.name):
            raise DataError(
                f"{place}: expected a result of today's trial {result.name}, found one of another "
                f"recipe, {result.trial}; name another folder with --out."
            )


def _named(overrides: list[str]) -> str:
    return f"--set {' '.join(overrides)}" if overrides else "no --set"


def _run(
    trial: Trial, config: Config, splits: dict[str, Split], probes: Probes, stage_a: StageA
) -> Iterator[Point]:
    torch.manual_seed(config.seed)
    spent = Spent()
    if trial.stage == "b":
        of_b = StageBLearner(config, splits["train"])
        score_b = lambda: score_stage_b(of_b, stage_a, splits["held-out"])  # noqa: E731
        yield from train(of_b, config.stage_b.training, config.seed, spent, score_b)
        return
    space = Space(splits["train"].semantics, trial.components)
    text = text_encoder(config, splits["train"])
    if trial.warm_start:
        before = TextLearner(text, space, splits["train"])
        short = config.stage_c.training.model_copy(update={"images": trial.warm_start})
        for _ in train(before, short, config.seed, spent):
            pass
        spent = replace(spent, images=0)  # its images are no diffusion steps; its compute counts
    of_c = StageCLearner(
        config,
        text,
        space,
        splits["train"],
        pretrained=trial.warm_start > 0,
        semantics_noise=trial.semantics_noise,
    )
    score_c = lambda: score_stage_c(of_c, space, probes, splits)  # noqa: E731
    yield from train(of_c, config.stage_c.training, config.seed, spent, score_c)


def main() -> None:
    """Errors of input are printed as one line without a traceback."""
    try:
        app(prog_name="python -m benchmarks.studies.learn_faster")
    except WuerstchenError as error:
        sys.exit(printable(str(error)))


if __name__ == "__main__":
    main()
