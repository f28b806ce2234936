"""`wuerstchen study serve`: show a study to raters in their browsers."""

import socket
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated

import typer

from wuerstchen.cli.options import number, tell
from wuerstchen.errors import ConfigError

EPILOG = "wuerstchen study serve mystudy --raters 3"


def serve(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="Folder of a study.")],
    raters: Annotated[int, number(1, "How many links to print, one for each rater.")] = 1,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on; by default only this machine can reach it."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8642,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Name by which browsers call the server; may be repeated."),
    ] = None,
) -> None:
    """Serve a study, and print a secret link for each rater to stdout.

    Each vote is on disk, in STUDY/votes.sqlite, before the next pair is shown. The links stay the
    same when the server is started again. Needs the extra study.
    """
    from wuerstchen.cli.study.installed import requires_study

    with requires_study():
        import uvicorn

        from wuerstchen.study.serve import build_app
    from wuerstchen.study.folder import VOTES, key_digest, open_study
    from wuerstchen.study.store import VoteStore

    opened, key = open_study(study)
    names = _names(name or [], host)
    listening = _listen(host, port)
    with (
        closing(listening),
        closing(VoteStore(study / VOTES, opened.id, key_digest(key))) as store,
    ):
        app = build_app(
            opened, study, store, [f"[{each}]" if ":" in each else each for each in names]
        )
        shown = names[0]
        where = f"{f'[{shown}]' if ':' in shown else shown}:{listening.getsockname()[1]}"
        for token in store.tokens(raters):
            print(f"http://{where}/r/{token}/", flush=True)
        tell("Serving until Ctrl-C. Give each rater one of the links; whoever has it can vote.")
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])
        print(f"{len(store.votes()):,} votes in {study / VOTES}.", file=sys.stderr)


def _names(given: Sequence[str], host: str) -> list[str]:
    """What browsers may call the server; raises ConfigError if there is nothing."""
    address = host
    with suppress(OSError):  # which `_listen` reports
        address = str(socket.getaddrinfo(host, None)[0][4][0])  # 0 is 0.0.0.0
    if address not in ("0.0.0.0", "::"):
        return [*given, host]
    if not given:
        raise ConfigError(
            f"Expected --name with --host {host}, which listens on all addresses and is none that "
            "browsers can call; name how browsers call this machine."
        )
    return list(given)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises ConfigError if the address cannot be used."""
    listening: socket.socket | None = None
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        if listening is not None:
            listening.close()
        raise ConfigError(
            f"Expected to listen on {host} port {port}, found: {error.strerror or error}; choose "
            "another --port or --host, or end the other server."
        ) from None
    return listening
