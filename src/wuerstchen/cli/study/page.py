"""`wuerstchen study page`: a study as one HTML file, for raters without a server."""

import os
from pathlib import Path
from typing import Annotated

import typer

from wuerstchen.cli.options import overwrite_option
from wuerstchen.errors import SaveError
from wuerstchen.terminal import print_path

EPILOG = "wuerstchen study page mystudy ballot.html"


def page(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="Folder of a study.")],
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The HTML file to write.")],
    overwrite: Annotated[bool, overwrite_option("Replace an existing file.")] = False,
) -> None:
    """Write a study as one HTML file, which works without a server or network.

    A rater opens it in a browser, and saves the votes as a file, which goes to `wuerstchen study
    analyse STUDY FILE...`. The file holds the images, and nothing of the systems.
    """
    from wuerstchen.atomic_write import write_file
    from wuerstchen.study.ballot import offline_page
    from wuerstchen.study.folder import open_study

    opened, _ = open_study(study)
    if os.path.lexists(out) and not overwrite:
        raise SaveError(f"{out} exists already; choose another file, or pass --overwrite.")
    write_file(out, offline_page(opened, study))
    print_path(out)
