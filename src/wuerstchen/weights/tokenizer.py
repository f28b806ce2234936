"""CLIP tokenizers, from a folder or from the metadata of a single-file model."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import CLIPTokenizer

from wuerstchen.errors import ModelFolderError
from wuerstchen.weights.files import read_json
from wuerstchen.weights.headers import read_header
from wuerstchen.weights.layout import (
    OLDER_VOCABULARY,
    PLACES,
    TOKENIZER_CONFIG,
    VOCABULARY,
    has_vocabulary,
)
from wuerstchen.weights.parts import PartFiles, texts_below
from wuerstchen.weights.text_values import check_length


def open_tokenizer(part: PartFiles) -> CLIPTokenizer:
    """The tokenizer of a text encoder; raises ModelFolderError where it is damaged."""
    if part.tokenizer is not None:
        return _open_tokenizer(part.tokenizer)
    texts = texts_below(read_header(part.weights).metadata, PLACES[part.part].tokenizer)
    with TemporaryDirectory() as name:  # transformers reads tokenizers from folders only
        folder = Path(name) / PLACES[part.part].tokenizer
        folder.mkdir()
        for file, text in texts.items():
            (folder / Path(file).name).write_text(text, encoding="utf-8")
        try:
            tokenizer = _open_tokenizer(folder)
        except ModelFolderError as error:
            raise ModelFolderError(str(error).replace(name, str(part.weights))) from None
    tokenizer.name_or_path = str(part.weights)
    return tokenizer


def counts_alike(one: PartFiles, other: PartFiles) -> bool:
    """Whether the tokenizers of two text encoders make the same tokens of every text.

    Their files may differ for all that: what was set at the last use is written down with them.
    Raises ModelFolderError where one is damaged.
    """
    first, second = (_manner(open_tokenizer(each)) for each in (one, other))
    return first == second


def _manner(tokenizer: CLIPTokenizer) -> dict[str, object]:
    """All that decides about the tokens of a text."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    own = {name: value for name, value in state.items() if name not in ("truncation", "padding")}
    return {**own, "length": tokenizer.model_max_length, "fills_up": tokenizer.pad_token_id}


def _open_tokenizer(folder: Path) -> CLIPTokenizer:
    if not has_vocabulary(folder):
        raise ModelFolderError(
            f"{folder} holds no vocabulary of a tokenizer (expected {VOCABULARY}, or "
            f"{' and '.join(OLDER_VOCABULARY)}); copy it again as a whole."
        )
    for path in sorted(folder.glob("*.json")):
        read_json(path)
    check_length(folder / TOKENIZER_CONFIG)
    try:
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        tokenizer.backend_tokenizer.encode("a")  # a vocabulary without letters fails here only
    except Exception as error:  # tokenizers has no error class of its own: it raises Exception
        raise ModelFolderError(
            f"{folder} cannot be read as a CLIP tokenizer ({said_by(error)}); "
            "copy it again, or train Stage C again."
        ) from None
    if tokenizer.pad_token is None:
        raise ModelFolderError(
            f"{folder / TOKENIZER_CONFIG}: pad_token should be a token, is null; captions shorter "
            "than the longest are filled up with it."
        )
    for note in ("is_local", "local_files_only"):  # of this reading, and not of the tokenizer
        tokenizer.init_kwargs.pop(note, None)
    return tokenizer


def said_by(error: Exception) -> str:
    """The first line that says something: some end in a colon, and the reason is in the next."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = next((i for i, line in enumerate(lines) if not line.endswith(":")), 0)
    return " ".join(lines[: first + 1]) or type(error).__name__
