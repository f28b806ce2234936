"""`wuerstchen encode`: what finished stages make of the training images, once for all runs."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from wuerstchen import weights
from wuerstchen.atomic_write import write_file
from wuerstchen.config import Config, dump
from wuerstchen.data import Pairs, open_pairs
from wuerstchen.errors import SaveError, TrainingError
from wuerstchen.geometry import scale_semantics
from wuerstchen.models.compressor import shrink
from wuerstchen.models.text import encode_frozen
from wuerstchen.receipts import Meter, update_receipts
from wuerstchen.training.distributed import local_device
from wuerstchen.training.latent_cache import (
    CHUNK,
    DTYPES,
    ENCODING,
    EncodingInfo,
    EncodingKind,
    all_captions,
    encoding_inputs,
    file_digest,
    file_name,
    folder_name,
    is_complete,
    read_finished,
)
from wuerstchen.training.preflight import check_device
from wuerstchen.training.stage import AT_ONCE
from wuerstchen.weights import component_in

WAIT = 1.0
"""Seconds between two looks at what the other processes have done."""

log = logging.getLogger(__name__)

Encode = Callable[[Sequence[int]], Tensor]
"""Numbers of rows of one shape to (B, ...)."""

Tell = Callable[[str, int, int], None]
"""(what, rows done, rows in all)."""


def encode(
    config: Config,
    kinds: Sequence[EncodingKind],
    dtype: str,
    *,
    rank: int = 0,
    world: int = 1,
    tell: Tell = lambda what, done, of: None,
) -> list[Path]:
    """Encode the training images of a config into `config.data.latent_cache`; returns the folders.

    What is there already and whole is not made again; the first process mends what was finished
    once and is damaged now. rank, world: of this process among those that share the work.

    Raises TrainingError where the config names no folder or a device is not there, ModelFolderError
    where a stage is not trained yet, SaveError where nothing can be written or a value is too large
    for `dtype`.
    """
    if not config.data.latent_cache:
        raise TrainingError(
            "data.latent_cache is empty; set data.latent_cache=FOLDER, where to write."
        )
    if dtype not in DTYPES:
        raise TrainingError(f"Expected a dtype of {', '.join(DTYPES)}, found {dtype!r}.")
    check_device()
    for what in kinds:
        _check_encoder(what, config)
    train, _, _ = open_pairs(config.data)
    root, device = Path(config.data.latent_cache), local_device()
    folders = []
    with ExitStack() as held:
        pool = held.enter_context(ThreadPoolExecutor(os.cpu_count()))
        meter = held.enter_context(
            Meter(
                config.folder,
                stage="b" if list(kinds) == ["latents"] else "c",
                kind="encoding",
                devices=world,
                writes=rank == 0,
                config=dump(config),
                data=train.digest(),
            )
        )
        for what in kinds:
            network, of_rows, keys = _encoder(what, config, train, device, pool)
            parts = encoding_inputs(what, network, train, dtype)
            folder = root / folder_name(what, parts)
            folders.append(folder)
            info = EncodingInfo(what=what, rows=len(keys), dtype=dtype, made_of=parts)
            before = read_finished(folder)
            if before is None or before.model_copy(update={"files": {}}) != info:
                _make(folder, info, keys, of_rows, rank, world, tell, meter)
            elif rank == 0 and not _stands(folder, before):
                log.warning("%s is damaged; what differs is made again.", folder)
                info.files.update(before.files)
                _make(folder, info, keys, of_rows, 0, 1, tell, meter)
    if rank == 0:
        update_receipts(config.folder)
    return folders


def _stands(folder: Path, info: EncodingInfo) -> bool:
    """Whether every file of a finished encoding is as it was written."""
    return all(
        is_complete(folder / file_name(rows.start // CHUNK), rows, _digest_in(info, rows))
        for rows in _chunks(info)
    )


def _chunks(info: EncodingInfo) -> list[range]:
    """The rows of every file."""
    return [range(start, min(start + CHUNK, info.rows)) for start in range(0, info.rows, CHUNK)]


def _digest_in(info: EncodingInfo, rows: range) -> str | None:
    return info.files.get(file_name(rows.start // CHUNK))


def _make(
    folder: Path,
    info: EncodingInfo,
    keys: Sequence[object],
    of_rows: Encode,
    rank: int,
    world: int,
    tell: Tell,
    meter: Meter,
) -> None:
    """Make the files of this process that are not whole; the first one then seals all.

    info  names the digests of files that were finished before, if any
    """
    chunks = _chunks(info)
    paths = [folder / file_name(place) for place in range(len(chunks))]
    others = [place for place in range(len(chunks)) if place % world != rank]
    missing = [place for place in others if not is_complete(paths[place], chunks[place])]
    for place in range(rank, len(chunks), world):
        rows, path = chunks[place], paths[place]
        if not is_complete(path, rows, _digest_in(info, rows)):
            write_file(path, _encoded(rows, keys, of_rows, info, tell))
            meter.tick(len(rows))
        meter.mark_saved()
        tell(info.what, rows.stop, info.rows)
    if rank == 0:
        while not all(map(is_complete, paths, chunks)):
            time.sleep(WAIT)  # for the files of the other processes
        meter.tick(sum(len(chunks[place]) for place in missing))
        meter.mark_saved()
        info = info.model_copy(update={"files": {path.name: file_digest(path) for path in paths}})
        write_file(folder / ENCODING, (info.model_dump_json(indent=2) + "\n").encode())


def _encoded(
    numbers: range, keys: Sequence[object], of_rows: Encode, info: EncodingInfo, tell: Tell
) -> bytes:
    """The content of one file: a tensor for each row."""
    tensors: dict[str, Tensor] = {}
    for part in _of_one_key(numbers, keys):
        rows = of_rows(part).to("cpu", DTYPES[info.dtype])
        if not rows.isfinite().all():
            raise SaveError(
                f"{info.what} of row {part[0]} or near it are not finite as {info.dtype}; encode "
                "with --dtype fp32."
            )
        tensors |= {
            str(n): row.clone(memory_format=torch.contiguous_format)
            for n, row in zip(part, rows, strict=True)
        }
        tell(info.what, numbers.start + len(tensors), info.rows)
    return bytes(save(tensors, metadata={"what": info.what}))


def _of_one_key(numbers: range, keys: Sequence[object]) -> Iterator[list[int]]:
    """Rows that go through a network together: of one shape, a few at a time."""
    ordered = sorted(numbers, key=lambda n: (str(keys[n]), n))
    for _, group in groupby(ordered, key=lambda n: keys[n]):
        same = list(group)
        for start in range(0, len(same), AT_ONCE):
            yield same[start : start + AT_ONCE]


def _check_encoder(what: EncodingKind, config: Config) -> None:
    """Raise TrainingError or ModelFolderError where what shall encode is not there."""
    if what == "latents":
        component_in(config.folder, "stage_a")
    elif what == "semantics":
        component_in(config.folder, "compressor")
    elif not config.text.pretrained:
        raise TrainingError(
            "Text can be encoded ahead where it comes from a published encoder, which stays as "
            "it is: set text.pretrained, or encode without text."
        )


def _encoder(
    what: EncodingKind, config: Config, train: Pairs, device: torch.device, pool: ThreadPoolExecutor
) -> tuple[nn.Module, Encode, Sequence[object]]:
    """The network that encodes, what it does to rows, and what rows must share to go together."""
    if what == "text":
        path = Path(config.text.pretrained)
        encoder = weights.load_clip_text(path, path).eval().requires_grad_(False).to(device)
        captions = list(all_captions(train))
        return (
            encoder,
            lambda rows: encode_frozen(encoder, [captions[n] for n in rows]),
            [0] * len(captions),
        )

    def images(rows: Sequence[int]) -> Tensor:
        return torch.stack(list(pool.map(train.image, rows))).to(device).float() / 255

    shapes: list[object] = train.buckets.tolist()
    if what == "latents":
        stage_a = weights.stage_a.load(config.folder).eval().requires_grad_(False).to(device)
        return stage_a, torch.no_grad()(lambda rows: stage_a.encode(images(rows))), shapes
    compressor = weights.compressor.load(config.folder).eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def semantics(rows: Sequence[int]) -> Tensor:
        found: Tensor = compressor(shrink(images(rows)))
        return scale_semantics(found)

    return compressor, semantics, shapes
