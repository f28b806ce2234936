"""Prompt lists in the forms in which they are published."""

import os
from pathlib import Path

import pytest

from wuerstchen.data.prompts import Prompt, read_prompts
from wuerstchen.errors import DataError


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.txt", "a cat\n\na dog\n"),
        ("p.csv", "id,Prompt,Category\n1,a cat,animals\n2,a dog,animals\n"),
        ("p.tsv", "Prompt\tCategory\na cat\tanimals\na dog\tanimals\n"),
        (
            "p.jsonl",
            '{"tag": "animals", "prompt": "a cat"}\n{"tag": "animals", "prompt": "a dog"}\n',
        ),
    ],
)
def test_prompt_lists_are_read_in_the_forms_of_the_field(
    tmp_path: Path, name: str, text: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    category = "" if name == "p.txt" else "animals"
    assert read_prompts(path) == [Prompt("a cat", category), Prompt("a dog", category)]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.txt", "a cat\na dog\na cat\n", "found twice: a cat"),
        ("p.txt", "\n", "found none"),
        ("p.csv", "text\na cat\n", "name the column"),
        ("p.jsonl", "{", "line 1"),
    ],
)
def test_bad_prompt_lists_are_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_prompts(path)


def test_a_prompt_may_come_twice_where_that_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "captions.txt"
    path.write_text("a cat\na cat\n")
    assert read_prompts(path, doubles=True) == [Prompt("a cat"), Prompt("a cat")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_only_line_breaks_end_a_prompt(tmp_path: Path, encoding: str) -> None:
    """U+2028 is legal inside JSON text."""
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a\u2028cat"}\n', encoding=encoding)
    assert read_prompts(path) == [Prompt("a\u2028cat")]


def test_a_pipe_is_no_prompt_list(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.txt")
    with pytest.raises(DataError, match="not a regular file"):
        read_prompts(tmp_path / "p.txt")
