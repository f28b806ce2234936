"""The server of a study: a page for each rater, images, and votes; nothing of systems."""

from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from wuerstchen.errors import WuerstchenError
from wuerstchen.study.ballot import served_page
from wuerstchen.study.folder import IMAGES, Study
from wuerstchen.study.store import Side, VotedError, VoteStore

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
MAX_BODY = 4096
"""Bytes of a vote."""

_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_Name = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
_Next = Callable[[Request], Awaitable[Response]]


class _Vote(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    pair: _Name
    left: _Name
    choice: Side
    seconds: float = Field(ge=0, le=1e7, allow_inf_nan=False)
    change: bool


def build_app(study: Study, folder: Path, store: VoteStore, hosts: Sequence[str]) -> FastAPI:
    """The application.

    hosts  names by which browsers may call the server, besides those of this machine; others are
           refused, so that no page from elsewhere can reach it under a name of its own
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    allowed = {name.lower() for name in (*LOOPBACK, *hosts)}

    @app.middleware("http")
    async def guard(request: Request, call_next: _Next) -> Response:
        answer = _refused(request, allowed) or await call_next(request)
        for name, value in _HEADERS.items():
            answer.headers.setdefault(name, value)
        return answer

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        del request
        return _said(422, f"Expected a vote, found: {error.errors()[0]['msg']}.")

    @app.get("/r/{token}/")
    def page(token: str) -> Response:
        if (rater := store.rater(token)) is None:
            return _unknown()
        seed = sha256(token.encode()).hexdigest()
        found = served_page(study, rater, seed, store.votes(rater))
        return HTMLResponse(found.html, headers={"Content-Security-Policy": found.policy})

    @app.get("/r/{token}/images/{name}.png")
    def image(token: str, name: str) -> Response:
        if (rater := store.rater(token)) is None:
            return _unknown()
        if not any(name in pair.images for pair in study.part(rater)):
            return _said(404, "Expected an image of this rater's pairs, found none of this name.")
        return FileResponse(folder / IMAGES / f"{name}.png", media_type="image/png")

    @app.post("/r/{token}/votes")
    def vote(token: str, given: _Vote) -> Response:
        if (rater := store.rater(token)) is None:
            return _unknown()
        pair = next((each for each in study.part(rater) if each.id == given.pair), None)
        if pair is None or given.left not in pair.images:
            return _said(404, "Expected a vote on a pair of this rater, found another pair.")
        try:
            store.save(
                rater, given.pair, given.left, given.choice, given.seconds, change=given.change
            )
        except VotedError as error:
            return _said(409, str(error))
        except WuerstchenError as error:
            return _said(507, str(error))
        return Response(status_code=204)

    return app


def _refused(request: Request, allowed: set[str]) -> Response | None:
    host = request.headers.get("host", "").lower()
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if name not in allowed:
        return _said(421, "This server is not called by this name; use the link as it was given.")
    origin = request.headers.get("origin")
    if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
        return _said(403, "Expected a request from the page of the study, found another page.")
    length = request.headers.get("content-length", "0")
    if request.method == "POST" and not (length.isdecimal() and 0 < int(length) <= MAX_BODY):
        return _said(413, f"Expected a vote of at most {MAX_BODY} bytes.")
    return None


def _unknown() -> Response:
    return _said(404, "Expected the link of a rater, found an unknown one; ask for your link.")


def _said(status: int, sentence: str) -> Response:
    return PlainTextResponse(sentence, status_code=status)
