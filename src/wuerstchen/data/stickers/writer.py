"""Write composed scenes as webdataset tars for training and `wuerstchen prepare`.

OUT/train-00000.tar        KEY.webp, KEY.txt (the first caption), KEY.json (all captions, truth)
OUT/test-cells-00000.tar   scenes of cells that are not in training
"""

import io
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from PIL import Image

from wuerstchen.atomic_write import write_file
from wuerstchen.data.stickers.composer import Composed, Composer
from wuerstchen.data.stickers.truth import to_json

SCENES_PER_TAR = 1000


def write_scenes(
    composer: Composer,
    count: int,
    folder: Path,
    workers: int = 1,
    on_written: Callable[[int], None] = lambda scenes: None,
) -> list[Path]:
    """Write the scenes 0 to count - 1; returns the tars.

    workers     number of processes; the files do not depend on it
    on_written  called with the number of scenes of each finished tar

    Raises SaveError if the disk is full or the folder is not writable.
    """
    starts = range(0, count, SCENES_PER_TAR)
    ranges = [range(start, min(start + SCENES_PER_TAR, count)) for start in starts]
    tars = [folder / f"{composer.sprites.part}-{k:05d}.tar" for k in range(len(ranges))]
    if workers == 1 or len(ranges) == 1:
        for path, indices in zip(tars, ranges, strict=True):
            on_written(_write_tar(composer, indices, path))
        return tars
    # Spawned, not forked: torch may have started threads in this process.
    with ProcessPoolExecutor(min(workers, len(ranges)), get_context("spawn")) as pool:
        futures = [
            pool.submit(_write_tar, composer, indices, path)
            for path, indices in zip(tars, ranges, strict=True)
        ]
        for future in as_completed(futures):
            on_written(future.result())
    return tars


def _write_tar(composer: Composer, indices: range, path: Path) -> int:
    """Write these scenes to one tar; returns their number."""
    write_file(path, _tar(composer, indices))
    return len(indices)


def members(composed: Composed) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files of one scene."""
    truth = composed.truth
    key = f"{truth.seed}-{truth.index:08d}"
    yield f"{key}.webp", _webp(composed.image)
    yield f"{key}.txt", composed.captions[0].text.encode()
    yield f"{key}.json", to_json(truth, composed.captions)


def _tar(composer: Composer, indices: range) -> bytes:
    """The content of a tar; without dates and user names, so that it is reproducible."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for index in indices:
            for name, content in members(composer[index]):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _webp(image: Image.Image) -> bytes:
    """Lossless, so that the background has its exact colour."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, quality=0, method=1)
    return buffer.getvalue()
