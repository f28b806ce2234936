"""`wuerstchen encode`: encode the training images with finished stages, once for all runs."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from wuerstchen import weights
from wuerstchen.atomic_write import write_file
from wuerstchen.config import Config, dump
from wuerstchen.data import Pairs, open_pairs
from wuerstchen.digests import file_digest
from wuerstchen.errors import SaveError, TrainingError
from wuerstchen.geometry import scale_semantics
from wuerstchen.models.compressor import shrink
from wuerstchen.models.text import encode_frozen
from wuerstchen.overlap import check_apart
from wuerstchen.owned import check_state
from wuerstchen.receipts import Meter, update_receipts
from wuerstchen.training import latent_cache
from wuerstchen.training.distributed import local_device
from wuerstchen.training.latent_cache import EncodingInfo, EncodingKind, is_complete
from wuerstchen.training.preflight import check_device
from wuerstchen.training.stage import AT_ONCE
from wuerstchen.weights import component_in

WAIT = 1.0
"""Seconds between checks for the files of other processes."""

log = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int], None]
"""(kind, rows done, rows in total)."""


def encode(
    config: Config,
    kinds: Sequence[EncodingKind],
    dtype: str,
    *,
    rank: int = 0,
    world: int = 1,
    on_progress: OnProgress = lambda kind, done, total: None,
) -> list[Path]:
    """Encode the training images of a config into `config.data.latent_cache`; returns the folders.

    Complete encodings are kept. Rank 0 repairs those that were finished and are now damaged.
    rank, world: rank of this process, and the number of processes that share the work.

    Raises TrainingError if the config names no folder or a device is missing, ModelFolderError if
    a stage is not trained yet, SaveError if nothing can be written or a value is too large for
    `dtype`.
    """
    if not config.data.latent_cache:
        raise TrainingError("data.latent_cache is empty; set data.latent_cache=FOLDER.")
    if dtype not in latent_cache.DTYPES:
        raise TrainingError(
            f"Expected a dtype of {', '.join(latent_cache.DTYPES)}, found {dtype!r}."
        )
    check_device()
    for kind in kinds:
        _check_encoder(kind, config)
    _check_apart(config)
    train, _, _ = open_pairs(config.data)
    root, device = Path(config.data.latent_cache), local_device()
    folders: list[Path] = []
    measured = Meter(
        config.folder,
        stage="b" if list(kinds) == ["latents"] else "c",
        kind="encoding",
        devices=world,
        writes=rank == 0,
        config=dump(config),
        data=train.digest(),
    )
    with ThreadPoolExecutor(os.cpu_count()) as pool, measured as meter:
        for kind in kinds:
            encoder = _open_encoder(kind, config, train, device, pool)
            inputs = latent_cache.encoding_inputs(kind, encoder.network, train, dtype)
            folder = root / latent_cache.folder_name(kind, inputs)
            folders.append(folder)
            info = EncodingInfo(what=kind, rows=len(encoder.keys), dtype=dtype, made_of=inputs)
            check_state(folder, "an encoding", partial(latent_cache.is_encoding, kind=kind))
            before = latent_cache.read_encoding(folder)
            if before is None or before.model_copy(update={"files": {}}) != info:
                _Writer(folder, info, encoder, meter, on_progress).write(rank, world)
            elif rank == 0 and not all(
                is_complete(folder / name, rows, before.files.get(name))
                for name, rows in before.chunks().items()
            ):
                log.warning("%s is damaged; its damaged files are encoded again.", folder)
                _Writer(folder, before, encoder, meter, on_progress).write(0, 1)
    if rank == 0:
        update_receipts(config.folder)
    return folders


def _check_apart(config: Config) -> None:
    """Raise TrainingError for a cache in or around what is encoded, or what encodes it."""
    inputs: dict[str, str | Path] = {
        "data.path": config.data.path,
        "the model": config.folder,
        "text.pretrained": config.text.pretrained,
    }
    check_apart(inputs, Path(config.data.latent_cache), error=TrainingError)


@dataclass(frozen=True)
class _Encoder:
    network: nn.Module
    encode: Callable[[Sequence[int]], Tensor]
    """Indices of rows with the same key to (B, ...)."""
    keys: Sequence[object]
    """A key for each row; rows with the same key can be encoded in one batch."""


@dataclass(frozen=True)
class _Writer:
    folder: Path
    info: EncodingInfo
    """With the digests of the files, if the encoding was finished before."""
    encoder: _Encoder
    meter: Meter
    on_progress: OnProgress

    def write(self, rank: int, world: int) -> None:
        """Write the incomplete files of this process; rank 0 then finishes the encoding."""
        files = [(self.folder / name, rows) for name, rows in self.info.chunks().items()]
        others = [file for index, file in enumerate(files) if index % world != rank]
        missing = [rows for path, rows in others if not is_complete(path, rows)]
        for path, rows in files[rank::world]:
            if not is_complete(path, rows, self.info.files.get(path.name)):
                write_file(path, self._content(rows))
                self.meter.mark_saved(len(rows))
            self.on_progress(self.info.what, rows.stop, self.info.rows)
        if rank == 0:
            while not all(is_complete(path, rows) for path, rows in files):
                time.sleep(WAIT)  # for the other processes
            self.meter.mark_saved(sum(map(len, missing)))
            digests = {path.name: file_digest(path) for path, _ in files}
            info = self.info.model_copy(update={"files": digests})
            write_file(
                self.folder / latent_cache.ENCODING,
                (info.model_dump_json(indent=2) + "\n").encode(),
            )

    def _content(self, rows: range) -> bytes:
        """The content of a file: one tensor per row."""
        info, tensors = self.info, dict[str, Tensor]()
        for batch in _batches(rows, self.encoder.keys):
            values = self.encoder.encode(batch).to("cpu", latent_cache.DTYPES[info.dtype])
            if not values.isfinite().all():
                raise SaveError(
                    f"{info.what} of row {batch[0]} or near it are not finite as {info.dtype}; "
                    "encode with --dtype fp32."
                )
            for row, value in zip(batch, values, strict=True):
                tensors[str(row)] = value.clone(memory_format=torch.contiguous_format)
            self.meter.tick()  # saves the time so far now and then
            self.on_progress(info.what, rows.start + len(tensors), info.rows)
        return bytes(save(tensors, metadata={"what": info.what}))


def _batches(rows: range, keys: Sequence[object]) -> Iterator[list[int]]:
    """Batches of rows with the same key."""
    ordered = sorted(rows, key=lambda row: (str(keys[row]), row))
    for _, group in groupby(ordered, key=lambda row: keys[row]):
        same = list(group)
        for start in range(0, len(same), AT_ONCE):
            yield same[start : start + AT_ONCE]


def _check_encoder(kind: EncodingKind, config: Config) -> None:
    """Raise TrainingError or ModelFolderError if the network that encodes is missing."""
    if kind == "latents":
        component_in(config.folder, "stage_a")
    elif kind == "semantics":
        component_in(config.folder, "compressor")
    elif not config.text.pretrained:
        raise TrainingError(
            "Text can be encoded in advance only by a published encoder, which stays frozen: set "
            "text.pretrained, or encode without text."
        )


def _open_encoder(
    kind: EncodingKind, config: Config, train: Pairs, device: torch.device, pool: ThreadPoolExecutor
) -> _Encoder:
    def images(rows: Sequence[int]) -> Tensor:
        return torch.stack(list(pool.map(train.image, rows))).to(device).float() / 255

    if kind == "text":
        path = Path(config.text.pretrained)
        text = weights.load_clip_text(path, path).eval().requires_grad_(False).to(device)
        captions = list(latent_cache.all_captions(train))

        def states(rows: Sequence[int]) -> Tensor:
            return encode_frozen(text, [captions[row] for row in rows])

        return _Encoder(text, states, [0] * len(captions))
    shapes: list[object] = train.buckets.tolist()
    if kind == "latents":
        stage_a = weights.stage_a.load(config.folder).eval().requires_grad_(False).to(device)
        encode = torch.no_grad()(lambda rows: stage_a.encode(images(rows)))
        return _Encoder(stage_a, encode, shapes)
    compressor = weights.compressor.load(config.folder).eval().requires_grad_(False).to(device)

    encode = torch.no_grad()(lambda rows: scale_semantics(compressor(shrink(images(rows)))))
    return _Encoder(compressor, encode, shapes)
