"""`wuerstchen study analyse`: win rates, strengths and agreement from votes."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from wuerstchen.cli import options
from wuerstchen.display import printable
from wuerstchen.errors import ConfigError

EPILOG = "wuerstchen study analyse mystudy --out report"


def analyse(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="Folder of a study, or a CSV file of votes.")
    ],
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="Files of raters who voted without a server."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder for analysis.json, study.html and votes.csv."),
    ] = None,
    min_catch: Annotated[
        float,
        typer.Option(
            metavar="SHARE", help="Leave out raters with a smaller share of catch pairs right."
        ),
    ] = 0.8,
    seed: options.EvaluationSeed = 0,
    overwrite: options.OverwriteReport = False,
) -> None:
    """Analyse the votes of a study: win rates with intervals, strengths, agreement.

    Ties are left out of win rates, and are part of Davidson's model for the strengths. Intervals
    and tests take raters as clusters.
    """
    from wuerstchen.cli.study.installed import requires_study

    if not 0 <= min_catch <= 1:
        raise ConfigError(f"--min-catch must be from 0 to 1, found {min_catch:g}.")
    with requires_study():
        from wuerstchen.study import report
        from wuerstchen.study.analysis import analyse as analyse_votes
    from wuerstchen.atomic_write import write_file
    from wuerstchen.study.gather import gather
    from wuerstchen.study.votes import read_votes, write_votes

    if files and not study.is_dir():
        raise ConfigError(f"Expected one CSV file of votes, found {len(files)} more files.")
    votes = gather(study, files or ()) if study.is_dir() else read_votes(study)
    if out is not None:
        options.make_report_folder(
            out, report.FILES, overwrite=overwrite, model=study, data=str(study)
        )
    found = analyse_votes(votes, min_catch=min_catch, seed=seed)
    for line in report.lines(found):
        print(printable(line))
    if out is not None:
        contents = (report.as_json(found), report.page(found, study.stem), write_votes(votes))
        for name, content in zip(report.FILES, contents, strict=True):
            write_file(out / name, content)
        print("Wrote", *(printable(out / name) for name in report.FILES), file=sys.stderr)
