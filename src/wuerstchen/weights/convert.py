"""Model files of one kind to those of another, tensor by tensor and bit by bit.

diffusers    a model folder: every part in its folder, as the rest of this package writes it
original     the authors' key names: stage_a.safetensors, stage_b.safetensors, … in a folder;
             text encoders stay folders. The compressor has a file of its own, so that other
             tools, which expect no keys beside those of Stage B, can open that one.
single-file  one safetensors file: keys begin with the folder of their part, and configs and
             tokenizers are in its metadata under the names that they have in a model folder
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from wuerstchen.atomic_write import write_file
from wuerstchen.errors import ConfigError, ModelFolderError, SaveError
from wuerstchen.weights import components
from wuerstchen.weights.components import published_tensors
from wuerstchen.weights.files import replacing
from wuerstchen.weights.folder import INDEX, PARTS, finish_folder
from wuerstchen.weights.headers import read_header
from wuerstchen.weights.layout import CONFIG, PLACES, Part, has_part
from wuerstchen.weights.names import NETWORKS, published_config
from wuerstchen.weights.original import to_original
from wuerstchen.weights.parts import PartFiles, texts_below
from wuerstchen.weights.streaming import write_stream
from wuerstchen.weights.text import outline_text

Target = Literal["diffusers", "original", "single-file"]

BESIDE = ("wuerstchen.json", "README.md", "LICENSE")
"""What goes with a model from one kind of files to the next."""
TOKENIZER_FILES = ("*.json", "*.txt")

OUTLINES: Mapping[Part, Callable[[PartFiles], nn.Module]] = {
    "stage_a": components.outline_stage_a,
    "stage_b": components.outline_stage_b,
    "stage_c": components.outline_stage_c,
    "compressor": components.outline_compressor,
    "text_b": outline_text,
    "text_c": outline_text,
}
CONFIGS = {
    "stage_a": components.stage_a_config,
    "stage_b": components.stage_b_config,
    "stage_c": components.stage_c_config,
    "compressor": components.compressor_config,
}


def convert(
    parts: Mapping[Part, PartFiles],
    out: Path,
    to: Target,
    *,
    source: Path | None = None,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write `parts` as files of the kind `to`; the paths that were written.

    out        a folder; a file for single-file, and where one part becomes one original file
    source     the folder or file from which wuerstchen.json, README.md and LICENSE come along
    dtype      of the numbers; None keeps them bit by bit
    overwrite  whether parts that are there already may be replaced; others always stay

    Raises SaveError, and ModelFolderError for parts that are damaged, before anything is written.
    """
    targets = _targets(parts, out, to)
    beside = {} if source is None else beside_of(source)
    if source is not None and source.is_dir():
        check_apart(source, out)
    if not overwrite:
        check_free(parts, targets, out, to, beside)
    for part, files in parts.items():
        OUTLINES[part](files)  # compares keys and shapes, and reads no weight
        texts_of_tokenizer(files)
        if dtype is not None:
            _check_fits(files, dtype)
    if to == "single-file":
        _write_single(parts, out, beside, dtype)
    else:
        for part, files in parts.items():
            if to == "diffusers" or PLACES[part].tokenizer:
                write_folder(files, out, dtype)
            else:
                _write_original(files, targets[part], dtype)
        if len(parts) > 1:
            for name, text in beside.items():
                write_file(out / name, text.encode())
        whole = to == "diffusers" and all(has_part(out, part) for part in PARTS)
        if whole and (overwrite or not (out / INDEX).exists()):
            finish_folder(out)
    return list(dict.fromkeys(targets.values()))


def check_apart(source: Path, out: Path) -> None:
    """Raise ConfigError where what is written would become a part of what is read."""
    inner, outer = out.resolve(), source.resolve()
    if inner != outer and inner.is_relative_to(outer):
        raise ConfigError(
            f"{out}: expected a place outside of {source}, which would hold its weights twice "
            "then; choose another one."
        )


def check_free(
    parts: Mapping[Part, PartFiles],
    targets: Mapping[Part, Path],
    out: Path,
    to: Target,
    beside: Mapping[str, str],
) -> None:
    """Raise SaveError where something is in the place of what would be written."""
    places = list(targets.values())
    if to != "single-file":
        places += [out / PLACES[part].tokenizer for part in parts if PLACES[part].tokenizer]
        places += [out / name for name in beside if len(parts) > 1]
    for place in places:
        if place.exists():
            raise SaveError(
                f"{place} is there already and was left as it is; choose another place, or "
                "pass --overwrite."
            )


def _check_fits(files: PartFiles, dtype: torch.dtype) -> None:
    """Raise SaveError for a number that `dtype` cannot hold, before any part is written."""
    for name, tensor in published_tensors(files).items():
        if tensor.is_floating_point() and not tensor.to(dtype).isfinite().all():
            raise SaveError(
                f"{name} of {PLACES[files.part].title} holds values that are not finite as "
                f"{dtype}, so nothing was written; choose --dtype bf16, with the range of fp32."
            )


def _targets(parts: Mapping[Part, PartFiles], out: Path, to: Target) -> dict[Part, Path]:
    is_file = out.suffix == ".safetensors"
    if to == "single-file":
        if not is_file:
            raise ConfigError(
                f"{out}: expected a name that ends in .safetensors, since the model becomes one "
                "file."
            )
        return dict.fromkeys(parts, out)
    if (out.is_file() and not (to == "original" and is_file)) or (to == "diffusers" and is_file):
        raise ConfigError(f"{out}: expected a folder, since the parts go into folders of it.")
    if to == "original":
        texts = any(PLACES[part].tokenizer for part in parts)
        if is_file and (len(parts) > 1 or texts):
            why = "a text encoder stays one" if texts else "each part becomes a file"
            raise ConfigError(f"{out}: expected a folder, since {why}.")
        return {
            part: out / PLACES[part].folder
            if PLACES[part].tokenizer
            else (out if is_file else out / f"{part}.safetensors")
            for part in parts
        }
    return {part: out / PLACES[part].folder for part in parts}


def write_folder(
    files: PartFiles,
    out: Path,
    dtype: torch.dtype | None,
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a part into its folder of a model folder; other tensors in place of its own, if given.

    Raises SaveError where it cannot be written.
    """
    place = PLACES[files.part]
    targets = [out / folder for folder in (place.folder, place.tokenizer) if folder]
    own = published_tensors(files) if tensors is None else tensors
    chunks = {name: [tensor] for name, tensor in own.items()}
    with replacing(*targets) as asides:
        (asides[0] / CONFIG).write_text(_config_text(files), encoding="utf-8")
        write_stream(asides[0] / place.weights, chunks, {}, dtype)
        for name, text in texts_of_tokenizer(files).items():
            (asides[1] / name).write_text(text, encoding="utf-8", newline="")


def _write_original(files: PartFiles, target: Path, dtype: torch.dtype | None) -> None:
    config = {f"{PLACES[files.part].folder}/{CONFIG}": _config_text(files)}
    write_stream(target, to_original(published_tensors(files)), config, dtype)


def _write_single(
    parts: Mapping[Part, PartFiles],
    out: Path,
    beside: Mapping[str, str],
    dtype: torch.dtype | None,
) -> None:
    chunks, metadata = {}, dict(beside)
    for part, files in parts.items():
        place = PLACES[part]
        for name, tensor in published_tensors(files).items():
            chunks[f"{place.folder}.{name}"] = [tensor]
        metadata[f"{place.folder}/{CONFIG}"] = _config_text(files)
        for name, text in texts_of_tokenizer(files).items():
            metadata[f"{place.tokenizer}/{name}"] = text
    write_stream(out, chunks, metadata, dtype)


def _config_text(files: PartFiles) -> str:
    """config.json as it is, or made where the sizes follow from shapes."""
    values = files.config_values()
    names = NETWORKS.get(files.part)
    if names is not None and (values or {}).get("_class_name") != names.class_name:
        made = published_config(CONFIGS[files.part](files), names)
        return json.dumps(made, indent=2, sort_keys=True) + "\n"
    if files.config is not None:
        return files.config.read_text(encoding="utf-8")
    return read_header(files.weights).metadata[f"{PLACES[files.part].folder}/{CONFIG}"]


def texts_of_tokenizer(files: PartFiles) -> dict[str, str]:
    """The files of a text encoder's tokenizer by name; none for other parts."""
    tokenizer = PLACES[files.part].tokenizer
    if not tokenizer:
        return {}
    if files.tokenizer is None:
        return texts_below(read_header(files.weights).metadata, tokenizer)
    # A text encoder in one folder with its tokenizer: the model's config is not the tokenizer's.
    return {
        path.name: _read_text(path)
        for pattern in TOKENIZER_FILES
        for path in sorted(files.tokenizer.glob(pattern))
        if path.name != CONFIG
    }


def beside_of(source: Path) -> dict[str, str]:
    """What goes with a model, of `BESIDE`, by name."""
    if source.is_file():
        metadata = read_header(source).metadata
        return {name: metadata[name] for name in BESIDE if name in metadata}
    return {name: _read_text(source / name) for name in BESIDE if (source / name).is_file()}


def _read_text(path: Path) -> str:
    """Raises ModelFolderError for what is no text or cannot be read."""
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFolderError(
            f"{path}: expected UTF-8 text, found: {error}; save it as UTF-8, or move it away."
        ) from None
