"""`wuerstchen study`: people compare images of systems without knowing which is which."""

import typer

from wuerstchen.cli.study import analyse, create, page, power, serve
from wuerstchen.cli.verbs import add_verb

app = typer.Typer(
    name="study",
    help="Let people compare images blindly, and analyse their votes.",
    no_args_is_help=True,
)

add_verb(app, create.create, create.EPILOG)
add_verb(app, serve.serve, serve.EPILOG)
add_verb(app, page.page, page.EPILOG)
add_verb(app, power.power, power.EPILOG)
add_verb(app, analyse.analyse, analyse.EPILOG)
