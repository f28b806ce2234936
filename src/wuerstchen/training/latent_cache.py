"""The latent cache of `wuerstchen encode`: latents, semantics and text states of training images.

FOLDER/semantics-0123456789abcdef/
  encoding.json         description, written last: the cache is complete
  00000.safetensors     rows 0 to 4095, one tensor each, since shapes may differ

The name has a digest of everything that a row depends on: the weights, the data and how images are
cropped. Other weights have another folder, so a stale cache is never read.
"""

import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, final

import numpy as np
import torch
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from wuerstchen.data import Batch, Pairs
from wuerstchen.digests import file_digest
from wuerstchen.errors import TrainingError
from wuerstchen.parsing import parse_model, read_bytes

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
    """The inputs of the digest, for people."""
    files: dict[str, str] = {}
    """SHA-256 of every file by name."""

    def chunks(self) -> dict[str, range]:
        """The rows of every file."""
        starts = range(0, self.rows, CHUNK)
        return {file_name(at // CHUNK): range(at, min(at + CHUNK, self.rows)) for at in starts}


@final
class Encoding:
    """Rows of one encoding, read on demand."""

    def __init__(self, folder: Path, info: EncodingInfo) -> None:
        self.folder, self.info = folder, info
        self._file = lru_cache(maxsize=OPEN_FILES)(self._open)
        self._verified: set[str] = set()  # files that match their digest

    def __len__(self) -> int:
        return self.info.rows

    def rows(self, numbers: Sequence[int]) -> Tensor:
        """(B, ...) in fp32, of rows with the same shape.

        Raises TrainingError if a file is missing or damaged.
        """
        try:
            found: list[Tensor] = [
                self._file(n // CHUNK).get_tensor(str(n))  # type: ignore[no-untyped-call]
                for n in numbers
            ]
        except (OSError, SafetensorError) as error:
            raise TrainingError(
                f"{self.folder}: expected the encodings as written, found: {error}; run "
                "`wuerstchen encode` again, which repairs damaged files."
            ) from None
        return torch.stack(found).float()

    def _open(self, chunk: int) -> safe_open:
        path = self.folder / file_name(chunk)
        expected = self.info.files.get(path.name)
        if path.name not in self._verified and self.info.files:
            if file_digest(path) != expected:
                raise OSError(f"the content of {path.name} changed")
            self._verified.add(path.name)
        return safe_open(path, framework="pt")


def file_name(chunk: int) -> str:
    return f"{chunk:05d}.safetensors"


def folder_name(what: EncodingKind, made_of: dict[str, str]) -> str:
    """Name of an encoding: its kind and the digest of everything that it depends on."""
    text = "\0".join(f"{key}={made_of[key]}" for key in sorted(made_of))
    return f"{what}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def encoding_inputs(
    what: EncodingKind, network: nn.Module, pairs: Pairs, dtype: str
) -> dict[str, str]:
    """Everything that a row depends on, by name."""
    config = pairs.config
    crops = {"size": f"{config.size}", "buckets": f"{config.buckets}"}
    images = {} if what == "text" else crops | {"background": config.background}
    weights = weights_digest(network)
    return {"weights": weights, "data": pairs.digest(), "dtype": dtype, **images}


def find_encoding(
    root: str, what: EncodingKind, network: nn.Module, pairs: Pairs
) -> Encoding | None:
    """The encoding of `pairs` by `network` in the folder `root`, if it exists."""
    if not root:
        return None
    made = encoding_inputs(what, network, pairs, next(iter(DTYPES)))  # reads all weights
    for dtype in DTYPES:
        parts = made | {"dtype": dtype}
        folder = Path(root) / folder_name(what, parts)
        info = read_encoding(folder)
        if info is not None and info.rows == row_count(what, pairs):
            log.info("Reading %s from %s.", what, folder)
            return Encoding(folder, info)
    message = (
        "%s has no %s of this data by these weights (%s), so they are computed during training; "
        "`wuerstchen encode` computes them once for all runs."
    )
    log.info(message, root, what, _others(Path(root), what, parts))
    return None


def read_encoding(folder: Path) -> EncodingInfo | None:
    """The file encoding.json; None if it is missing, damaged or of another folder."""
    try:
        info = parse_model(EncodingInfo, read_bytes(folder / ENCODING))
    except (OSError, ValueError):
        return None
    own = folder.name == folder_name(info.what, info.made_of)
    listed = not info.files or info.files.keys() == info.chunks().keys()
    return info if own and listed and info.dtype == info.made_of.get("dtype") else None


def row_count(what: EncodingKind, pairs: Pairs) -> int:
    """The rows of an encoding of `pairs`."""
    return sum(1 for _ in all_captions(pairs)) if what == "text" else len(pairs)


def is_encoding(folder: Path, *, kind: EncodingKind) -> bool:
    """Whether everything in a folder is of an encoding, which may be unfinished."""
    if read_encoding(folder) is not None:
        return True
    paths = list(folder.iterdir())
    names = re.compile(
        r"\d{5,}\.safetensors|encoding\.json|\.(\d{5,}\.safetensors|encoding\.json)\.\w+"
    )
    if not all(names.fullmatch(path.name) and not path.is_symlink() for path in paths):
        return False
    rows = [path for path in paths if path.suffix == ".safetensors"]
    return not rows or any(_has_rows(path, kind) for path in rows)  # others may be damaged


def _has_rows(path: Path, kind: EncodingKind) -> bool:
    """Whether a file says that its rows are of an encoding of this kind."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("what") == kind
    except (OSError, SafetensorError):
        return False


def is_complete(path: Path, rows: range, sha256: str | None = None) -> bool:
    """Whether a file has these rows untruncated, or the given digest."""
    try:
        if sha256 is not None:
            return file_digest(path) == sha256
        with safe_open(path, framework="pt") as file:  # compares header and size
            return set(file.keys()) == set(map(str, rows))
    except (OSError, SafetensorError):
        return False


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of all names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _others(root: Path, what: EncodingKind, parts: dict[str, str]) -> str:
    """Describe an encoding that exists instead, and how it differs."""
    for folder in sorted(root.glob(f"{what}-*")):
        if (other := read_encoding(folder)) is None:
            return f"{folder.name} is not finished, or damaged"
        differs = [key for key in parts if key != "dtype" and other.made_of.get(key) != parts[key]]
        return f"{folder.name} has other {', '.join(differs)}"
    return "none exist"


def all_captions(pairs: Pairs) -> Iterator[str]:
    """Every caption of every image in order, then the empty one: the rows of text states."""
    for pair in pairs:
        yield from pair.captions
    yield ""


@final
class TextStates:
    """Text states of the captions of training images, and of the empty caption."""

    def __init__(self, encoding: Encoding, pairs: Pairs) -> None:
        self._encoding, self._pairs = encoding, pairs
        counts = np.array([len(pair.captions) for pair in pairs])
        self._first = np.concatenate([[0], np.cumsum(counts)])  # the last is the empty caption

    def of(self, batch: Batch, dropped: Sequence[bool]) -> Tensor:
        """(B, L, D); dropped captions get the states of the empty one."""
        rows = [
            int(self._first[-1])
            if drop
            else int(self._first[index]) + self._pairs[index].captions.index(caption)
            for index, caption, drop in zip(batch.indices, batch.captions, dropped, strict=True)
        ]
        return self._encoding.rows(rows)
