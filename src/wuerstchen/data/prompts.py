"""Prompt lists with categories, in the forms in which they are published."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from wuerstchen.data.captions import decode_text, lines_of
from wuerstchen.display import printable
from wuerstchen.errors import DataError, os_errors_as
from wuerstchen.parsing import ParseError, parse_object, read_bytes

_CATEGORIES = ("category", "tag")
_MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt; `category` is empty where the list has none."""

    text: str
    category: str = ""


def read_prompts(path: Path, *, doubles: bool = False) -> list[Prompt]:
    """Read a prompt list.

    .csv, .tsv   a column `prompt` or `prompts`, maybe `category` or `tag`; in any case of letters
    .jsonl       the same as keys, as in GenEval
    others       one prompt on each line

    doubles  whether a prompt may come twice

    Raises DataError if the file cannot be read, has no prompt, or has one twice.
    """
    try:
        with os_errors_as(DataError):
            text = decode_text(read_bytes(path, _MAX_BYTES))
    except ParseError as error:
        raise DataError(f"{path}: expected a prompt list, but {error}.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected text in UTF-8 or UTF-16, found: {error}.") from None
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        prompts = [_of_json(line, f"{path} line {n}") for n, line in _lines(text)]
    elif suffix in (".csv", ".tsv"):
        prompts = _of_table(text, "\t" if suffix == ".tsv" else ",", path)
    else:
        prompts = [Prompt(line.strip()) for _, line in _lines(text)]
    if not prompts:
        raise DataError(f"{path}: expected prompts, found none; add some.")
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.text in seen and not doubles:
            raise DataError(
                f"{path}: expected each prompt once, found twice: {printable(prompt.text)}; remove "
                "one of them."
            )
        seen.add(prompt.text)
    return prompts


def _lines(text: str) -> list[tuple[int, str]]:
    return [(n, line) for n, line in enumerate(lines_of(text), start=1) if line.strip()]


def _of_json(line: str, place: str) -> Prompt:
    try:
        return _prompt(parse_object(line), place)
    except ParseError as error:
        raise DataError(f"{place}: expected a JSON object, found that {error}.") from None


def _of_table(text: str, delimiter: str, path: Path) -> list[Prompt]:
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return [_prompt(dict(row), f"{path} line {rows.line_num}") for row in rows]
    except csv.Error as error:
        raise DataError(f"{path}: expected a table of prompts, found: {error}.") from None


def _prompt(row: dict[str, object], place: str) -> Prompt:
    values = {str(key).lower(): value for key, value in row.items()}
    text = values.get("prompt", values.get("prompts"))
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{place}: expected a prompt, found none; name the column `prompt`.")
    named = (values.get(name) for name in _CATEGORIES)
    category = next((value for value in named if isinstance(value, str) and value.strip()), "")
    return Prompt(text.strip(), category.strip())
