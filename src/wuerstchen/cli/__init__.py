"""The command `wuerstchen`: one file a verb, put together here.

A verb imports torch when it runs and not before, so that `--help` answers at once.
"""

import sys
from typing import Annotated

import typer

from wuerstchen import __version__
from wuerstchen.cli import (
    convert,
    diagnose,
    encode,
    evaluate,
    generate,
    inspect,
    merge,
    plan,
    prepare,
    receipt,
    train,
)
from wuerstchen.errors import WuerstchenError

BAD_INPUT = 2
"""Exit code of everything that a user can put right; the same as for a wrong option."""

app = typer.Typer(
    name="wuerstchen",
    help="Würstchen: text to image in three stages.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(no_args_is_help=True, epilog=generate.EPILOG)(generate.generate)
app.command(no_args_is_help=True, epilog=train.EPILOG)(train.train)
app.command(no_args_is_help=True, epilog=plan.EPILOG)(plan.plan)
app.command(no_args_is_help=True, epilog=prepare.EPILOG)(prepare.prepare)
app.command(no_args_is_help=True, epilog=encode.EPILOG)(encode.encode)
app.command(epilog=evaluate.EPILOG)(evaluate.evaluate)
app.command(no_args_is_help=True, epilog=diagnose.EPILOG)(diagnose.diagnose)
app.command(no_args_is_help=True, epilog=inspect.EPILOG)(inspect.inspect)
app.command(no_args_is_help=True, epilog=convert.EPILOG)(convert.convert)
app.command(no_args_is_help=True, epilog=merge.EPILOG)(merge.merge)
app.command(no_args_is_help=True, epilog=receipt.EPILOG)(receipt.receipt)


def _show_version(wanted: bool) -> None:
    if wanted:
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


def main() -> None:
    """Run a verb. An error that we explain is one message on stderr, without a traceback."""
    try:
        app()
    except WuerstchenError as error:
        print(error, file=sys.stderr)
        sys.exit(BAD_INPUT)
