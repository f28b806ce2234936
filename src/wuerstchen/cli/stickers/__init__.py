"""`wuerstchen stickers`: the sticker set, and scenes composed of it."""

import typer

from wuerstchen.cli.stickers import build, compose
from wuerstchen.cli.verbs import add_verb

app = typer.Typer(
    name="stickers",
    help="Build a set of emoji in six drawing styles, and compose captioned scenes of it.",
    no_args_is_help=True,
)

add_verb(app, build.build, build.EPILOG)
add_verb(app, compose.compose, compose.EPILOG)
