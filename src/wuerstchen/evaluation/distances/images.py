"""The images of a set: in a folder, in tars, in a prepared set, or drawn by a model on the fly."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import final

from PIL import Image

from wuerstchen.data.images import MAX_PIXELS, open_image, pillow_warnings
from wuerstchen.data.items import ByteRange
from wuerstchen.data.natural_order import natural_key
from wuerstchen.data.sources import find_source, is_prepared
from wuerstchen.errors import DataError
from wuerstchen.evaluation.inputs import Draw, evenly_spaced

BACKGROUND = "white"
"""Behind transparent images."""


class ImageSet(ABC):
    """Images by number; the same set has the same key."""

    key: str
    """Identifies the set for features that are kept; does not show its content."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def load(self, start: int, stop: int) -> list[tuple[Image.Image, str]]:
        """RGB images `start` to `stop`, each with the SHA-256 of its file or pixels.

        Raises DataError for an image that cannot be read.
        """


@final
class StoredImages(ImageSet):
    """Images in a source of data; captions are kept where there are any."""

    def __init__(self, path: str, count: int | None = None) -> None:
        """
        count  images to use, evenly spaced over the set; None: all

        Raises DataError for a source without images, and one whose images are not all there.
        """
        found = _prepared(path) if is_prepared(Path(path).expanduser()) else _source(path)
        if count is not None and count > len(found):
            raise DataError(
                f"{path}: expected at least {count} images, found {len(found)}; ask for fewer."
            )
        chosen = evenly_spaced(len(found), len(found) if count is None else count)
        self.path = path
        self._files = [found[i] for i in chosen]
        text = "\n".join(_stamp(name, file) for name, file, _ in self._files)
        self.key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def __len__(self) -> int:
        return len(self._files)

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self._files]

    @property
    def own_captions(self) -> list[str]:
        """The first caption of every image; empty where it has none."""
        return [caption for _, _, caption in self._files]

    def captions(self) -> list[str]:
        """The first caption of every image. Raises DataError if one has none."""
        lacking = [name for name, _, caption in self._files if not caption]
        if lacking:
            raise DataError(
                f"{self.path}: expected a caption for every image to draw from, found none for "
                f"{len(lacking)} of {len(self)} ({lacking[0]}, …); pass --prompts FILE."
            )
        return self.own_captions

    def load(self, start: int, stop: int) -> list[tuple[Image.Image, str]]:
        with ThreadPoolExecutor(os.cpu_count()) as pool, pillow_warnings():
            return list(pool.map(self._open, self._files[start:stop]))

    def _open(self, entry: tuple[str, ByteRange, str]) -> tuple[Image.Image, str]:
        name, file, _ = entry
        try:
            data = file.read()
            image = open_image(data, MAX_PIXELS, BACKGROUND).image  # never at a reduced size
        except (OSError, DataError) as error:
            raise DataError(
                f"{self.path}: image {name} cannot be read: {str(error).rstrip('.')}; copy it "
                "again, or remove it: the number of images changes a distance, so none is skipped."
            ) from None
        return image, hashlib.sha256(data).hexdigest()


@final
class DrawnImages(ImageSet):
    """Images that a model draws, one for each prompt."""

    def __init__(self, draw: Draw, prompts: Sequence[str], seed: int, model: str) -> None:
        """
        seed   of the first image
        model  identifies the weights and settings
        """
        self._draw, self._prompts, self._seed = draw, prompts, seed
        text = "\n".join([model, str(seed), prompts_digest(prompts)])
        self.key = hashlib.sha256(text.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._prompts)

    def load(self, start: int, stop: int) -> list[tuple[Image.Image, str]]:
        images = self._draw(self._prompts[start:stop], self._seed + start)
        return [(image, hashlib.sha256(image.tobytes()).hexdigest()) for image in images]


def prompts_digest(prompts: Sequence[str]) -> str:
    """SHA-256 of a list of prompts, one per line."""
    text = "".join(f"{prompt}\n" for prompt in prompts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _stamp(name: str, file: ByteRange) -> str:
    """Changes when the file does."""
    try:
        found = file.path.stat()
        place = file.path.resolve()
    except OSError as error:
        raise DataError(f"{file.path}: image {name} cannot be read ({error.strerror}).") from None
    return f"{place} {name} {file.offset} {file.size} {found.st_size} {found.st_mtime_ns}"


def _source(path: str) -> list[tuple[str, ByteRange, str]]:
    """Name, file and first caption of every image of a folder or of tars."""
    source = find_source(path)
    found, lost = [], []
    for item in source.items():
        if item.image is None:
            lost.append(f"{item.key} is a caption without its image")
        elif item.problem == "image format is not supported":
            lost.append(f"{item.key} is of a format that is not read")
        else:
            found.append((item.key, item.image, item.captions[0] if item.captions else ""))
    if lost:
        raise DataError(
            f"{path}: expected images alone, or each with its caption, but {lost[0]}"
            f"{f' (and {len(lost) - 1} more)' if lost[1:] else ''}; the set is half-written: "
            "complete it, or remove what does not belong to it."
        )
    if not found:
        raise DataError(f"{path}: expected images, found none. {source.report.summary()}")
    numbered = all(_stem(entry).isdecimal() for entry in found)
    return sorted(found, key=lambda entry: natural_key(_stem(entry) if numbered else entry[0]))


def _stem(entry: tuple[str, ByteRange, str]) -> str:
    return PurePosixPath(entry[0]).stem


def _prepared(path: str) -> list[tuple[str, ByteRange, str]]:
    from wuerstchen.data.prepared import open_index  # needs the extra `data`

    index, _ = open_index(Path(path).expanduser())
    # All pairs of an index are of a file.
    return [(pair.key, pair.file, pair.captions[0]) for pair in index if pair.file is not None]
