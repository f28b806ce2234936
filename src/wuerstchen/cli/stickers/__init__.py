"""`wuerstchen stickers`: the sticker set, scenes composed of it, and scores of a model on it."""

import typer

from wuerstchen.cli.stickers import build, compose, score
from wuerstchen.cli.verbs import add_verb

app = typer.Typer(
    name="stickers",
    help="Build a set of emoji in six drawing styles, compose captioned scenes, score a model.",
    no_args_is_help=True,
)

add_verb(app, build.build, build.EPILOG)
add_verb(app, compose.compose, compose.EPILOG)
add_verb(app, score.score, score.EPILOG)
