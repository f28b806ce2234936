"""JSON from outside is parsed within limits, in time that grows with its length alone."""

import json
import signal
from collections.abc import Iterator

import pytest

from wuerstchen.parsing import JSON, ParseError, parse_json


@pytest.fixture(autouse=True)
def an_end() -> Iterator[None]:
    """What takes the square of the length would take hours."""

    def ended(*_: object) -> None:
        raise AssertionError("no end within 60 s")

    before = signal.signal(signal.SIGALRM, ended)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


NESTED = "[" * (JSON.depth + 1)


@pytest.mark.parametrize(
    "text",
    [
        NESTED + '"' + '\\"' * 1_000_000,
        NESTED + '"' + "\\" * 2_000_001,
        NESTED + '"a",' * 400_000 + '"',
        '"' * 2_000_001 + NESTED,
        NESTED + "{" * 2_000_000,
    ],
    ids=["escaped quotes", "backslashes", "open at the end", "quotes", "brackets"],
)
def test_hostile_text_is_refused_soon(text: str) -> None:
    with pytest.raises(ParseError):
        parse_json(text)


@pytest.mark.parametrize(
    "value",
    [
        {"a": 'quote " and \\ and [[[', "b": ["{" * 200, {"c": None}]},
        ["[" * 500] * 100,
        "\\" * 300 + '"' * 300 + "[" * 300,
    ],
)
def test_brackets_in_strings_are_no_depth(value: object) -> None:
    assert parse_json(json.dumps(value)) == value


def test_depth_is_bounded() -> None:
    deep = "[" * JSON.depth + "]" * JSON.depth
    assert parse_json(deep) is not None
    with pytest.raises(ParseError, match="nested"):
        parse_json(f"[{deep}]")
