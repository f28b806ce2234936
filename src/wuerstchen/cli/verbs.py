"""Add a function as a verb of the command, its docstring as the help."""

from collections.abc import Callable
from inspect import cleandoc

import typer


def add_verb(
    app: typer.Typer, verb: Callable[..., None], epilog: str, *, no_arguments: bool = False
) -> None:
    """Add a verb with its docstring as help, one line per paragraph so that terminals can wrap it.

    no_arguments  whether the verb can run without arguments
    """
    paragraphs = cleandoc(verb.__doc__ or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    app.command(help=text, no_args_is_help=not no_arguments, epilog=epilog)(verb)
