"""The page on which raters vote: one HTML file, which asks no other server for anything.

A served page sends each vote at once. A page for use without a server holds the images, keeps the
votes in the browser, and saves them as a file that `wuerstchen study analyse` reads.
"""

import base64
import hashlib
import html
import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from wuerstchen.study.folder import IMAGES, Pair, Study
from wuerstchen.study.store import StoredVote


class Page(NamedTuple):
    """An HTML page and the policy that browsers must keep on it."""

    html: bytes
    policy: str
    """Content-Security-Policy: the scripts and styles of this page, and nothing from elsewhere."""


def served_page(study: Study, rater: int, seed: str, votes: Sequence[StoredVote]) -> Page:
    """The page of one rater, who continues behind the last vote.

    seed  of the order and sides, which must stay the same for a rater
    """
    pairs = study.part(rater)
    given = {vote.pair: {"left": vote.left, "choice": vote.choice} for vote in votes}
    urls = {name: f"images/{name}.png" for pair in pairs for name in pair.images}
    data = {"seed": seed, "votes": given, "parts": [_pairs(pairs)], "images": urls}
    return _page(study, {"served": True, **data}, "img-src 'self'; connect-src 'self'")


def offline_page(study: Study, folder: Path) -> bytes:
    """The page for use without a server, with all images in it."""
    parts = [_pairs(study.part(number)) for number in range(len(study.parts))]
    names = sorted({name for pair in study.pairs for name in pair.images})

    def embedded(name: str) -> str:
        data = (folder / IMAGES / f"{name}.png").read_bytes()
        return "data:image/png;base64," + base64.b64encode(data).decode()

    images = {name: embedded(name) for name in names}
    return _page(study, {"served": False, "parts": parts, "images": images}, "img-src data:").html


def _pairs(pairs: Sequence[Pair]) -> list[dict[str, object]]:
    return [{"id": pair.id, "prompt": pair.prompt, "images": pair.images} for pair in pairs]


def _page(study: Study, data: dict[str, object], allowed: str) -> Page:
    read: Callable[[str], str] = lambda name: (  # noqa: E731
        files("wuerstchen.study").joinpath("page", name).read_text(encoding="utf-8")
    )
    style, script = read("ballot.css"), read("ballot.js")
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        f"{allowed}; base-uri 'none'; form-action 'none'"
    )
    values = {"study": study.id, "title": study.title, "question": study.question, **data}
    text = read("ballot.html")
    for name, value in (
        ("POLICY", html.escape(policy)),
        ("TITLE", html.escape(study.title)),
        ("STYLE", style),
        # A "<" could end the script element that holds the data.
        ("DATA", json.dumps(values, ensure_ascii=False).replace("<", "\\u003c")),
        ("SCRIPT", script),
    ):
        text = text.replace(f"<!--{name}-->", value)
    return Page(text.encode("utf-8", "replace"), policy + "; frame-ancestors 'none'")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
