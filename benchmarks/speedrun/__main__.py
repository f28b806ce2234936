"""From sprites to scores by a fixed clock.

    python -m benchmarks.speedrun laptop STICKERS OUT

STICKERS is a folder of tars, train-*.tar and test-cells-*.tar. OUT receives report.json and
report.html, the model folder with its receipt, sample grids and a log. Run it again to resume after
an interruption. On a machine with more cores, `taskset -c 0,1` leaves a run two of them.
"""

import sys
from dataclasses import asdict, replace
from math import inf
from pathlib import Path
from typing import Annotated, cast

import psutil
import typer

from benchmarks.speedrun.classes import CLASSES, Class, ClassName, Seconds
from benchmarks.speedrun.report import PAGE, Settings, open_report
from benchmarks.speedrun.run import Speedrun
from benchmarks.speedrun.samples import CAPTIONED
from wuerstchen.config import Config, load
from wuerstchen.data.stickers import open_sprites
from wuerstchen.display import printable
from wuerstchen.errors import ConfigError, WuerstchenError
from wuerstchen.evaluation.stickers.crop_features import FeatureNetwork

app = typer.Typer(add_completion=False)


@app.command()
def speedrun(
    of: Annotated[ClassName, typer.Argument(metavar="CLASS", help="laptop or h100.")],
    stickers: Annotated[Path, typer.Argument(help="Folder of the sticker tars.")],
    out: Annotated[Path, typer.Argument(help="Folder to write to, or of a run to resume.")],
    config: Annotated[Path | None, typer.Option(help="Instead of the class's recipe.")] = None,
    scenes: Annotated[
        int | None, typer.Option(min=CAPTIONED, help="Composed training scenes.")
    ] = None,
    seconds: Annotated[
        str | None, typer.Option(help="Seconds of training for Stages A, B and C: 500,1450,1050.")
    ] = None,
    judged: Annotated[
        int | None, typer.Option(min=0, help="Images of each set of prompts; 0 ends unscored.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Config values, such as seed=1.")
    ] = None,
    compiled: Annotated[bool | None, typer.Option("--compile/--no-compile")] = None,
) -> None:
    """Compose scenes, train all stages for a fixed time, and score the model.

    Options change a run from its class; one that is changed in more than its seed, or judged by
    fewer images, is no record.
    """
    begun = psutil.Process().create_time()
    usual = CLASSES[of]
    chosen = replace(
        usual,
        config=usual.config if config is None else config,
        scenes=usual.scenes if scenes is None else scenes,
        seconds=usual.seconds if seconds is None else _seconds(seconds),
        judged=usual.judged if judged is None else judged,
        compiled=usual.compiled if compiled is None else compiled,
    )
    if chosen.judged == 1:
        raise ConfigError("--judged: expected 0, or 2 or more, found 1; distances need two images.")
    loaded = load(str(chosen.config), overrides or [])
    report = open_report(out, _settings(of, chosen, loaded, overrides or [], stickers))
    scored = report.scores is not None and report.judged >= chosen.judged
    if scored and (out / PAGE).is_file():
        typer.echo(f"Finished before: {out / PAGE}")
        return
    if chosen.judged:
        FeatureNetwork()  # which tells now if a package is missing
    Speedrun(stickers, out, loaded, report, begun).run(chosen.judged)


def _settings(
    of: ClassName, chosen: Class, config: Config, overrides: list[str], stickers: Path
) -> Settings:
    usual, changed = asdict(CLASSES[of]), asdict(chosen)
    names = ("config", "scenes", "seconds", "compiled")
    return Settings(
        of=of,
        changed=[*(f"{k}={changed[k]}" for k in names if changed[k] != usual[k]), *overrides],
        stickers=len(open_sprites(stickers)),
        scenes=chosen.scenes,
        seconds=chosen.seconds,
        limit=chosen.limit,
        compiled=chosen.compiled,
        config=config.model_dump(mode="json"),
    )


def _seconds(text: str) -> Seconds:
    """Raises ConfigError."""
    try:
        values = tuple(float(each) for each in text.split(","))
    except ValueError:
        values = ()
    if len(values) != len(CLASSES["laptop"].seconds) or not all(0 < x < inf for x in values):
        raise ConfigError(
            f"--seconds: expected those of Stages A, B and C such as 500,1450,1050, found {text!r}."
        )
    return cast(Seconds, values)


def main() -> None:
    """Errors of input are printed as one line without a traceback."""
    try:
        app(prog_name="python -m benchmarks.speedrun")
    except WuerstchenError as error:
        sys.exit(printable(str(error)))


if __name__ == "__main__":
    main()
