"""What `wuerstchen encode` made: latents, semantics and text states of the training images.

FOLDER/semantics-0123456789abcdef/
  encoding.json         what it is; written last, so that it says that all is there
  00000.safetensors     rows 0 to 4095, each a tensor of its own, since shapes may differ

The name holds a digest of everything that a row depends on: the weights that encoded, the data and
how images are cut. With other weights another folder is looked for, so a stale one is never read.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, final

import numpy as np
import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from wuerstchen.data import Batch, Pairs
from wuerstchen.errors import TrainingError

EncodingKind = Literal["latents", "semantics", "text"]

CHUNK = 4096
"""Rows in a file."""

OPEN_FILES = 64

ENCODING = "encoding.json"

DTYPES = {"fp16": torch.float16, "fp32": torch.float32}

log = logging.getLogger(__name__)


class EncodingInfo(BaseModel):
    """The file encoding.json."""

    version: Literal[1] = 1
    what: EncodingKind
    rows: int
    dtype: str
    made_of: dict[str, str]
    """What went into the digest, for people."""
    files: dict[str, str] = {}
    """SHA-256 of every file, by its name."""


@final
class Encoding:
    """Rows of one encoding, read from the disk as they are asked for."""

    def __init__(self, folder: Path, info: EncodingInfo) -> None:
        self.folder, self.info = folder, info
        self._file = lru_cache(maxsize=OPEN_FILES)(self._open)
        self._whole: set[str] = set()  # files that were compared with their digest

    def __len__(self) -> int:
        return self.info.rows

    def rows(self, numbers: Sequence[int]) -> Tensor:
        """(B, ...) of rows that have one shape, in fp32.

        Raises TrainingError where a file is gone or damaged.
        """
        try:
            found: list[Tensor] = [
                self._file(n // CHUNK).get_tensor(str(n))  # type: ignore[no-untyped-call]
                for n in numbers
            ]
        except (OSError, SafetensorError) as error:
            raise TrainingError(
                f"{self.folder}: expected the encodings that were written, found: {error}; run "
                "`wuerstchen encode` again, which makes what is damaged anew."
            ) from None
        return torch.stack(found).float()

    def _open(self, chunk: int) -> safe_open:
        path = self.folder / file_name(chunk)
        expected = self.info.files.get(path.name)
        if path.name not in self._whole and expected is not None:
            if file_digest(path) != expected:
                raise OSError(f"{path.name} has another content than when it was written")
            self._whole.add(path.name)
        return safe_open(path, framework="pt")


def file_digest(path: Path) -> str:
    """SHA-256 of what the file holds."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_name(chunk: int) -> str:
    return f"{chunk:05d}.safetensors"


def folder_name(what: EncodingKind, made_of: dict[str, str]) -> str:
    """What an encoding is called: its kind and the digest of all that it depends on."""
    words = "\0".join(f"{key}={made_of[key]}" for key in sorted(made_of))
    return f"{what}-{hashlib.sha256(words.encode()).hexdigest()[:16]}"


def encoding_inputs(
    what: EncodingKind, network: nn.Module, pairs: Pairs, dtype: str
) -> dict[str, str]:
    """Everything that a row depends on."""
    config = pairs.config
    parts = {"weights": weights_digest(network), "data": pairs.digest(), "dtype": dtype}
    if what != "text":
        parts |= {"size": str(config.size), "buckets": str(config.buckets)}
        parts["background"] = config.background
    return parts


def find_encoding(
    root: str, what: EncodingKind, network: nn.Module, pairs: Pairs
) -> Encoding | None:
    """What `network` made of `pairs`, if it is in the folder `root`; said in the log either way."""
    if not root:
        return None
    made = encoding_inputs(what, network, pairs, next(iter(DTYPES)))  # which reads all weights
    for dtype in DTYPES:
        parts = made | {"dtype": dtype}
        folder = Path(root) / folder_name(what, parts)
        try:
            found = Encoding(folder, read_encoding(folder))
        except (OSError, ValidationError):
            continue
        log.info("%s are read from %s.", what.capitalize(), folder)
        return found
    log.info(
        "%s holds no %s made by these weights of this data (%s), so they are made on the way; "
        "`wuerstchen encode` makes them once for all runs.",
        root,
        what,
        _others(Path(root), what, parts),
    )
    return None


def read_finished(folder: Path) -> EncodingInfo | None:
    """What encoding.json says; None where it is not there or damaged."""
    try:
        return read_encoding(folder)
    except (OSError, ValidationError):
        return None


def is_complete(path: Path, numbers: range, sha256: str | None = None) -> bool:
    """Whether a file holds these rows, to its end; with a digest also whether it has that one."""
    try:
        if sha256 is not None:
            return file_digest(path) == sha256
        with safe_open(path, framework="pt") as file:  # which compares header and size
            return set(file.keys()) == set(map(str, numbers))
    except (OSError, SafetensorError):
        return False


def read_encoding(folder: Path) -> EncodingInfo:
    return EncodingInfo.model_validate_json((folder / ENCODING).read_bytes())


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of all names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _others(root: Path, what: EncodingKind, parts: dict[str, str]) -> str:
    """What is there instead, and in what it differs."""
    for folder in sorted(root.glob(f"{what}-*")):
        try:
            other = read_encoding(folder).made_of
        except (OSError, ValidationError):
            return f"{folder.name} is not finished"
        differs = [key for key in parts if key != "dtype" and other.get(key) != parts[key]]
        return f"{folder.name} is of other {', '.join(differs)}"
    return "there are none"


def all_captions(pairs: Pairs) -> Iterator[str]:
    """Every caption of every image in order, and the empty one that stands for none: the rows of
    text states."""
    for pair in pairs:
        yield from pair.captions
    yield ""


@final
class TextStates:
    """Text states of the captions of training images, and of the empty caption."""

    def __init__(self, encoding: Encoding, pairs: Pairs) -> None:
        self._encoding, self._pairs = encoding, pairs
        counts = np.array([len(pair.captions) for pair in pairs])
        self._first = np.concatenate([[0], np.cumsum(counts)])  # the last one is the empty caption

    def of(self, batch: Batch, dropped: Sequence[bool]) -> Tensor:
        """(B, L, D); of the empty caption where it is dropped."""
        rows = [
            int(self._first[-1])
            if drop
            else int(self._first[index]) + self._pairs[index].captions.index(caption)
            for index, caption, drop in zip(batch.indices, batch.captions, dropped, strict=True)
        ]
        return self._encoding.rows(rows)
