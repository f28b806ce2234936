"""CLIP tokenizers, from a folder or from the metadata of a single-file model."""

from pathlib import Path
from reprlib import repr as brief
from tempfile import TemporaryDirectory

from transformers import CLIPTokenizer

from wuerstchen.errors import ModelFolderError
from wuerstchen.parsing import parse_object
from wuerstchen.weights.component_files import ComponentFiles, files_in_metadata
from wuerstchen.weights.files import read_json
from wuerstchen.weights.headers import read_header
from wuerstchen.weights.layout import (
    OLDER_VOCABULARY,
    PLACES,
    TOKENIZER_CONFIG,
    VOCABULARY,
    has_vocabulary,
)

MIN_TOKENS = 3
"""Start, end, and one token between them."""


def load_tokenizer(files: ComponentFiles) -> CLIPTokenizer:
    """The tokenizer of a text encoder; raises ModelFolderError if it is damaged."""
    if files.tokenizer is not None:
        return _load_from(files.tokenizer)
    place = PLACES[files.component].tokenizer
    texts = files_in_metadata(read_header(files.weights).metadata, place)
    with TemporaryDirectory() as name:  # transformers reads tokenizers from folders only
        folder = Path(name) / place
        folder.mkdir()
        for file, text in texts.items():
            (folder / Path(file).name).write_text(text, encoding="utf-8")
        try:
            tokenizer = _load_from(folder)
        except ModelFolderError as error:
            raise ModelFolderError(str(error).replace(name, str(files.weights))) from None
    tokenizer.name_or_path = str(files.weights)
    return tokenizer


def same_tokens(one: ComponentFiles, other: ComponentFiles) -> bool:
    """Whether the tokenizers of two text encoders make the same tokens of every text.

    Their files may still differ: they also store the settings of the last call. Raises
    ModelFolderError if one is damaged.
    """
    first, second = (_behaviour(load_tokenizer(each)) for each in (one, other))
    return first == second


def first_line(error: BaseException) -> str:
    """The first line of an error's message that ends a sentence, after those ending in a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    end = next((i for i, line in enumerate(lines) if not line.endswith(":")), 0)
    return " ".join(lines[: end + 1]) or type(error).__name__


def is_int(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _behaviour(tokenizer: CLIPTokenizer) -> dict[str, object]:
    """Everything that affects the tokens of a text."""
    state = parse_object(tokenizer.backend_tokenizer.to_str())
    own = {name: value for name, value in state.items() if name not in ("truncation", "padding")}
    return {**own, "length": tokenizer.model_max_length, "padding": tokenizer.pad_token_id}


def _try_encoding(tokenizer: CLIPTokenizer) -> None:
    """Encode a letter, at which a vocabulary without letters fails; unpadded, as files may ask
    for any length."""
    backend = tokenizer.backend_tokenizer
    padding = backend.padding
    backend.no_padding()
    backend.encode("a")
    if padding is not None:
        backend.enable_padding(**padding)


def _load_from(folder: Path) -> CLIPTokenizer:
    if not has_vocabulary(folder):
        raise ModelFolderError(
            f"{folder} has no tokenizer vocabulary (expected {VOCABULARY}, or "
            f"{' and '.join(OLDER_VOCABULARY)}); copy it again as a whole."
        )
    for path in sorted(folder.glob("*.json")):
        read_json(path)
    path = folder / TOKENIZER_CONFIG
    if not is_int(length := read_json(path).get("model_max_length"), MIN_TOKENS):
        raise ModelFolderError(
            f"{path}: model_max_length should be an integer of at least {MIN_TOKENS}, found "
            f"{brief(length)}."
        )
    try:
        tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        _try_encoding(tokenizer)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # tokenizers raises Exception, and for a panic BaseException
        raise ModelFolderError(
            f"{folder} cannot be read as a CLIP tokenizer ({first_line(error)}); "
            "copy it again, or train Stage C again."
        ) from None
    if tokenizer.pad_token is None:
        raise ModelFolderError(
            f"{folder / TOKENIZER_CONFIG}: pad_token should be a token, found null; shorter "
            "captions are padded with it."
        )
    for setting in ("is_local", "local_files_only"):  # of this call, not of the tokenizer
        tokenizer.init_kwargs.pop(setting, None)
    return tokenizer
