"""JSON and safetensors files, and folders that change as a whole or not at all."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from wuerstchen import locks, owned
from wuerstchen.atomic_write import explain_disk_errors, fsync_file, move_new, temporary_file
from wuerstchen.errors import ModelFolderError, SaveError
from wuerstchen.parsing import ParseError, parse_json, read_bytes

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Dtypes by their names in safetensors."""
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
Chunks = Mapping[str, Sequence[Tensor]]
"""Keys to the tensors whose rows a file joins under them; most have one."""


_WEIGHTS = r"(model|diffusion_pytorch_model)([.-][\w.-]+)?\.(safetensors|bin)(\.index\.json)?"
_JSON = (
    r"(config|scheduler_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens)\.json"
)
_COMPONENT_FILE = re.compile(rf"{_WEIGHTS}|{_JSON}|vocab\.json|merges\.txt")


def is_component_file(name: str) -> bool:
    """Whether a file in the folder of a component may be part of it, by its name."""
    return _COMPONENT_FILE.fullmatch(name) is not None


@contextmanager
def replacing(
    *targets: Path, is_own: Callable[[str], bool] = is_component_file, new: bool = False
) -> Iterator[tuple[Path, ...]]:
    """Yield an empty folder per target, which replaces the target at the end of the block.

    is_own  whether a file of this name may be replaced; a target with others is refused, and in a
            marked folder (`owned`) also one with content that was not written there
    new     whether a target that appears meanwhile, from another process, is refused

    After any failure the targets are unchanged. Raises SaveError where nothing can be written.
    """
    folders = tuple(target.with_name(f".{target.name}.new") for target in targets)
    for path in (each for pair in zip(targets, folders, strict=True) for each in pair):
        check_folder(path, is_own)
        check_folder(_backup(path), is_own)
    made = ExitStack()
    try:
        for target, folder in zip(targets, folders, strict=True):
            _recover(target, is_own)
            made.enter_context(_made(folder, is_own))
        yield folders
        for folder in folders:
            # safetensors makes files that only their owner can read: use the folder's permissions.
            mode = folder.stat().st_mode & 0o666
            for path in folder.iterdir():
                path.chmod(mode)
                fsync_file(path)
        for target, folder in zip(targets, folders, strict=True):
            owned.check_replaceable(target)
            for path in sorted(folder.iterdir()):
                owned.record_file(target / path.name, path)
        _swap(targets, folders, is_own, new=new)
    except (OSError, SafetensorError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise SaveError(
            f"{targets[0]} could not be written ({reason}); the previous contents are unchanged. "
            "Free some space or choose a writable folder, then run the same command again."
        ) from error
    finally:
        made.close()


def check_folder(folder: Path, is_own: Callable[[str], bool] = is_component_file) -> None:
    """Raise SaveError if a folder that will be replaced has anything that is not part of it."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir() or not is_own(path.name):
            raise SaveError(
                f"{folder} would be replaced, but {path.name} in it does not belong there; move "
                f"{path.name} elsewhere, or choose another output."
            )


@contextmanager
def _made(folder: Path, is_own: Callable[[str], bool]) -> Iterator[None]:
    """Make a temporary folder, which another process may not take for left by a kill."""
    with locks.held(folder):
        owned.remove_own(folder, is_own)
    folder.mkdir(parents=True)
    try:
        with locks.held(folder):
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # made above, for this alone


def current_path(target: Path) -> Path:
    """`target`, or its backup where a process was killed while replacing it."""
    backup = _backup(target)
    return backup if backup.exists() and not target.exists() else target


def json_text(values: Mapping[str, object]) -> str:
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def write_json(path: Path, values: Mapping[str, object]) -> None:
    path.write_text(json_text(values), encoding="utf-8")


def read_json(path: Path) -> dict[str, object]:
    """Raises ModelFolderError unless the file contains a JSON object."""
    try:
        return json_object(read_bytes(path), str(path))
    except (OSError, ParseError) as error:
        raise ModelFolderError(
            f"{path} cannot be read as JSON: {error}; copy or download it again."
        ) from None


def json_object(text: bytes | str, where: str) -> dict[str, object]:
    """Raises ModelFolderError unless `text` is a JSON object."""
    try:
        values = parse_json(text)
    except ParseError as error:
        raise ModelFolderError(
            f"{where} cannot be read as JSON: {error}; copy or download it again."
        ) from None
    if not isinstance(values, dict):
        raise ModelFolderError(f"{where}: expected a JSON object, found {type(values).__name__}.")
    return values


def write_tensors(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Write tensors as `dtype`, integers unchanged; raises SaveError for values not finite."""
    stored = {}
    for name, tensor in tensors.items():
        kept = tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype)
        if not kept.isfinite().all():
            raise SaveError(
                f"{name} has values that are not finite as {dtype}, so {path.name} was not "
                "written; the previous contents are unchanged."
            )
        stored[name] = kept.contiguous()
    save_file(stored, path, metadata={"format": "pt"})


def write_stream(
    path: Path,
    chunks: Chunks,
    metadata: Mapping[str, str],
    dtype: torch.dtype | None,
    *,
    new: bool = False,
) -> None:
    """Write a safetensors file tensor by tensor, so that a model need not fit into memory.

    dtype  of the weights; None keeps each tensor's own. Integers are unchanged.
    new    whether a file that appears meanwhile, from another process, is refused

    Raises SaveError where it cannot be written.
    """
    # Larger dtypes first, as safetensors sorts them, so that all tensors are aligned.
    keys = sorted(chunks, key=lambda key: (-_dtype(chunks[key], dtype).itemsize, key))
    with explain_disk_errors(path), temporary_file(path) as temporary:
        with temporary.open("wb") as file:
            header = _header(keys, chunks, metadata, dtype)
            file.write(len(header).to_bytes(8, "little") + header)
            for tensor in (tensor for key in keys for tensor in chunks[key]):
                kept = tensor.to(_dtype([tensor], dtype)).contiguous()
                file.write(kept.reshape(-1).view(torch.uint8).numpy().data)
        if not new:
            temporary.replace(path)
        elif not move_new(temporary, path):
            raise SaveError(f"{path} was made by another process meanwhile; choose another path.")


def _header(
    keys: Sequence[str], chunks: Chunks, metadata: Mapping[str, str], dtype: torch.dtype | None
) -> bytes:
    values: dict[str, object] = {"__metadata__": {"format": "pt", **dict(sorted(metadata.items()))}}
    start = 0
    for key in keys:
        tensors, stored = chunks[key], _dtype(chunks[key], dtype)
        end = start + sum(tensor.numel() for tensor in tensors) * stored.itemsize
        shape = list(tensors[0].shape)
        if len(tensors) > 1:
            shape[0] = sum(tensor.shape[0] for tensor in tensors)
        values[key] = {"dtype": DTYPE_NAMES[stored], "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def _dtype(tensors: Sequence[Tensor], dtype: torch.dtype | None) -> torch.dtype:
    """The dtype in which a key is stored."""
    own = tensors[0].dtype
    found = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors}
    if dtype is None and len(found) > 1:
        raise SaveError(
            "Expected tensors that are joined to have one dtype, found "
            f"{', '.join(sorted(found))}; pass --dtype fp32, which represents them all."
        )
    return dtype if dtype is not None and own.is_floating_point else own


def _backup(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _recover(target: Path, is_own: Callable[[str], bool]) -> None:
    """Restore the backup, or delete it if the target exists."""
    backup = _backup(target)
    if target.exists():
        _remove(backup, is_own)
    elif backup.exists():
        os.replace(backup, target)


def _swap(
    targets: tuple[Path, ...],
    folders: tuple[Path, ...],
    is_own: Callable[[str], bool],
    *,
    new: bool,
) -> None:
    # No system call replaces a folder with files in it, so the old one is renamed first.
    moved: list[Path] = []
    placed: list[Path] = []
    try:
        for target, folder in zip(targets, folders, strict=True):
            if os.path.lexists(target) and not new:
                os.replace(target, _backup(target))
                moved.append(target)
            os.replace(folder, target)  # refused by the system where a folder has files in it
            placed.append(target)
    except OSError:
        for target in placed:
            _remove(target, is_own)
        for target in moved:
            _recover(target, is_own)
        raise
    for target in targets:
        _remove(_backup(target), is_own)


def _remove(path: Path, is_own: Callable[[str], bool]) -> None:
    """Remove a folder of own files, or a link in its place, as far as possible."""
    if path.is_symlink():
        path.unlink(missing_ok=True)
    else:
        owned.remove_own(path, is_own)
