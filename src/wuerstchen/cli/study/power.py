"""`wuerstchen study power`: how many votes a study needs."""

from typing import Annotated

import typer

from wuerstchen.cli.options import number

EPILOG = "wuerstchen study power 0.6 --ties 0.15 --votes-per-rater 50"


def power(
    win_rate: Annotated[
        float, typer.Argument(metavar="RATE", help="The win rate to detect, such as 0.6.")
    ],
    ties: Annotated[
        float, typer.Option(metavar="SHARE", help="Expected share of ties among all votes.")
    ] = 0.15,
    votes_per_rater: Annotated[
        int, number(1, "Votes that one rater gives between these two systems.")
    ] = 50,
    correlation: Annotated[
        float,
        typer.Option(metavar="R", help="Of two votes of the same rater; 0 if raters are alike."),
    ] = 0.02,
    power: Annotated[
        float, typer.Option(metavar="SHARE", help="Chance of detecting the win rate.")
    ] = 0.8,
) -> None:
    """Print how many raters and votes a study between two systems needs.

    The test is two-sided at 5 %, with raters as clusters. Prints the number of votes to stdout.
    """
    from wuerstchen.cli.study.installed import requires_study

    with requires_study():
        from wuerstchen.study.power import votes_needed

    found = votes_needed(
        win_rate,
        ties=ties,
        votes_per_rater=votes_per_rater,
        correlation=correlation,
        power=power,
    )
    print(
        f"{found.votes:,} votes: {found.raters:,} raters with {votes_per_rater:,} votes each "
        f"(design effect {found.design_effect:.2f}; {found.decided:,} decided votes would be "
        "enough if all were independent)"
    )
