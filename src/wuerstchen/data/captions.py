"""Captions as files and fields hold them: text in known encodings, whole or one per line."""

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable
from math import isfinite

from wuerstchen.parsing import RECORD, ParseError, parse_json

CAPTION_FIELDS = ("captions", "caption", "text")

_LINE_BREAK = re.compile(r"\r\n?|\n")
"""No other character ends a line; `str.splitlines` also splits at U+2028, form feeds and more."""

_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
"""NUL bytes of UTF-16 that was read as UTF-8, and surrogates, which UTF-8 cannot encode."""


def decode_text(data: bytes) -> str:
    """UTF-8, or UTF-16 with its byte order mark; UnicodeDecodeError for anything else."""
    return data.decode(encoding_of(data))


def encoding_of(start: bytes) -> str:
    """The encoding of text by its first bytes."""
    return "utf-16" if start.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig"


def is_text(caption: str) -> bool:
    """Whether a tokenizer can read the caption."""
    return _NOT_TEXT.search(caption) is None


def lines_of(text: str) -> list[str]:
    return _LINE_BREAK.split(text)


def clean(captions: Iterable[str]) -> list[str]:
    """Stripped, with \\n for line breaks; without empty captions and repetitions, in order."""
    found = (_LINE_BREAK.sub("\n", caption).strip() for caption in captions)
    return list(dict.fromkeys(caption for caption in found if caption))


def same_words(first: Iterable[str], second: Iterable[str]) -> bool:
    """Whether two lists of captions are the same words, however they are broken into lines."""
    return " ".join(first).split() == " ".join(second).split()


def parse_captions(value: object) -> list[str] | None:
    """Captions of a field: text, a number, a list of them, or a list as JSON text (as needed in
    CSV). None if it holds something else and no caption."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _parse_list(value)
    values = value if isinstance(value, list) else [value]
    found = [text for text in map(_as_text, values) if text is not None]
    odd = any(isinstance(each, bool | list | dict) for each in values)
    return None if odd and not found else found


def _parse_list(text: str) -> object:
    """The list that `text` is as JSON, if it holds texts; not `[sic]` or `[1984]`."""
    try:
        found = parse_json(text, RECORD)
    except ParseError:
        return text
    texts = isinstance(found, list) and (not found or any(isinstance(x, str) for x in found))
    return found if texts else text


def _as_text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if number and isfinite(float(str(value))) else None  # NaN: no value in pandas
