"""The command `wuerstchen`, with one file per verb.

Verbs import torch only when they run, so that `--help` is fast.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, TextIO

import typer

from wuerstchen import __version__
from wuerstchen.cli import (
    alignment,
    compare,
    convert,
    diagnose,
    distance,
    encode,
    evaluate,
    generate,
    inspect,
    merge,
    plan,
    prepare,
    receipt,
    reconstruct,
    stickers,
    study,
    train,
)
from wuerstchen.cli.verbs import add_verb
from wuerstchen.display import printable
from wuerstchen.errors import UnusedWarning, WuerstchenError, os_errors_as
from wuerstchen.signals import ending_signals
from wuerstchen.terminal import guarded

BAD_INPUT = 2
"""Exit code for errors that users can fix; the same as for invalid options."""

app = typer.Typer(
    name="wuerstchen",
    help="Würstchen: text to image in three stages.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


add_verb(app, generate.generate, generate.EPILOG)
add_verb(app, train.train, train.EPILOG)
add_verb(app, plan.plan, plan.EPILOG)
add_verb(app, prepare.prepare, prepare.EPILOG)
add_verb(app, encode.encode, encode.EPILOG)
add_verb(app, reconstruct.reconstruct, reconstruct.EPILOG)
add_verb(app, evaluate.evaluate, evaluate.EPILOG, no_arguments=True)
add_verb(app, diagnose.diagnose, diagnose.EPILOG)
add_verb(app, distance.distance, distance.EPILOG)
add_verb(app, alignment.alignment, alignment.EPILOG)
add_verb(app, compare.compare, compare.EPILOG)
add_verb(app, inspect.inspect, inspect.EPILOG)
add_verb(app, convert.convert, convert.EPILOG)
add_verb(app, merge.merge, merge.EPILOG)
add_verb(app, receipt.receipt, receipt.EPILOG)
app.add_typer(stickers.app)
app.add_typer(study.app)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"wuerstchen {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    del version


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print what an input says and is not used as a sentence on stderr, without file and line."""
    before = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, UnusedWarning):
            print(f"Warning: {printable(message)}", file=sys.stderr)
        else:
            before(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UnusedWarning)
        warnings.showwarning = show
        yield


def main() -> None:
    """Run a verb. Errors of input, files and memory are printed as one line without a traceback."""
    try:
        with guarded(), os_errors_as(WuerstchenError), ending_signals(), _plain_warnings():
            try:
                app()
            finally:
                sys.stdout.flush()
    except WuerstchenError as error:
        _fail(str(error))
    except MemoryError as error:
        _fail(f"There is not enough memory ({error}); free some, or ask for less.")


def _fail(message: str) -> None:
    with guarded():
        print(printable(message), file=sys.stderr)
    sys.exit(BAD_INPUT)
