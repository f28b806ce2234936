"""Convert model files between formats, tensor by tensor and bit for bit.

diffusers    a model folder, with each component in its folder, as this package writes it
original     the authors' key names: stage_a.safetensors, stage_b.safetensors, … in a folder;
             text encoders stay folders. The compressor has its own file, so that other tools,
             which expect only the keys of Stage B, can open stage_b.safetensors.
single-file  one safetensors file: keys are prefixed with their component's folder, and configs
             and tokenizers are in its metadata, named as in a model folder
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from wuerstchen.atomic_write import write_file
from wuerstchen.config import Section
from wuerstchen.errors import ConfigError, ModelFolderError, SaveError
from wuerstchen.overlap import check_apart
from wuerstchen.owned import adopt
from wuerstchen.weights.component import published_tensors
from wuerstchen.weights.component_files import ComponentFiles, files_in_metadata, has_component
from wuerstchen.weights.components import COMPONENTS
from wuerstchen.weights.files import check_folder, json_text, replacing, write_stream
from wuerstchen.weights.folder import INDEX_FILES, write_index
from wuerstchen.weights.headers import read_header
from wuerstchen.weights.layout import CONFIG, PLACES, REQUIRED, ComponentName
from wuerstchen.weights.names import NAMES, published_config
from wuerstchen.weights.original import to_original
from wuerstchen.weights.weight_files import check_not_twice

Target = Literal["diffusers", "original", "single-file"]
Components = Mapping[ComponentName, ComponentFiles]

EXTRA_FILES = ("wuerstchen.json", "README.md", "LICENSE")
"""Files that are copied with a model."""
TOKENIZER_FILES = ("*.json", "*.txt")


def convert(
    components: Components,
    out: Path,
    to: Target,
    *,
    source: Path | None = None,
    others: Sequence[Path] = (),
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write `components` in the format `to`; returns the paths that were written.

    out        a folder; a file for single-file, or for one component in the original format
    source     the folder or file whose wuerstchen.json, README.md and LICENSE are copied too
    others     further paths that components are read from
    dtype      of the weights; None keeps them bit for bit
    overwrite  whether existing components may be replaced; other files always stay

    Raises SaveError, and ModelFolderError for damaged components, before anything is written.
    """
    targets = _targets(components, out, to)
    check_inputs([*([] if source is None else [source]), *others], targets, out)
    extra = check_target(targets, out, to, source, overwrite=overwrite)
    for name, files in components.items():
        COMPONENTS[name].empty(files)  # checks keys and shapes, and reads no weight
        tokenizer_files(files)
        if dtype is not None:
            _check_finite(files, dtype)
    if overwrite:
        allow_replacing(targets, out)
    if to == "single-file":
        _write_single(components, out, extra, dtype, new=not overwrite)
    else:
        for name, files in components.items():
            if to == "diffusers" or PLACES[name].tokenizer:
                write_folder(files, out, dtype, new=not overwrite)
            else:
                config = {f"{PLACES[name].folder}/{CONFIG}": _config_text(files)}
                chunks = to_original(published_tensors(files))
                write_stream(targets[name], chunks, config, dtype, new=not overwrite)
        if len(components) > 1:
            write_extra(extra, out)
        if to == "diffusers" and all(has_component(out, name) for name in REQUIRED):
            write_index(out, overwrite=overwrite)
    return list(dict.fromkeys(targets.values()))


def check_target(
    targets: Mapping[ComponentName, Path],
    out: Path,
    to: Target,
    source: Path | None,
    *,
    overwrite: bool,
) -> dict[str, str]:
    """The extra files of `source`, by name, that will be written to `out` too.

    Raises SaveError where something would be replaced.
    """
    extra = {} if source is None else extra_files(source)
    paths = list(targets.values())
    if to != "single-file":
        for name, path in targets.items():
            check_not_twice(out if path != out else out.parent, name)
        paths += [out / PLACES[name].tokenizer for name in targets if PLACES[name].tokenizer]
        paths += [out / file for file in extra if len(targets) > 1]
    for path in paths:
        if os.path.lexists(path) and not overwrite:
            raise SaveError(f"{path} exists already; choose another path, or pass --overwrite.")
        check_folder(path)
    return extra


def check_inputs(sources: Sequence[Path], targets: Mapping[ComponentName, Path], out: Path) -> None:
    """Raise ConfigError if a model would be written into or over one that it is read from.

    A file may be next to what becomes of it.
    """
    for source in sources:
        outputs = {out, *targets.values()} if source.is_dir() else set(targets.values())
        for output in outputs:
            check_apart({"": source}, output)


def allow_replacing(targets: Mapping[ComponentName, Path], out: Path) -> None:
    """Let everything be replaced that `--overwrite` names, also in a model trained at `out`."""
    tokenizers = [out / PLACES[name].tokenizer for name in targets if PLACES[name].tokenizer]
    adopt([*targets.values(), *tokenizers, *(out / file for file in (*EXTRA_FILES, *INDEX_FILES))])


def write_extra(extra: Mapping[str, str], out: Path) -> None:
    """Write files that come with a model."""
    for file, text in extra.items():
        write_file(out / file, text.encode())


def _check_finite(files: ComponentFiles, dtype: torch.dtype) -> None:
    """Raise SaveError for a value that `dtype` cannot represent, before anything is written."""
    for name, tensor in published_tensors(files).items():
        if tensor.is_floating_point() and not tensor.to(dtype).isfinite().all():
            raise SaveError(
                f"{name} of {files.title} has values that are not finite as {dtype}, so nothing "
                "was written; choose --dtype bf16, which has the range of fp32."
            )


def _targets(components: Components, out: Path, to: Target) -> dict[ComponentName, Path]:
    is_file = out.suffix == ".safetensors"
    if to == "single-file":
        if not is_file:
            raise ConfigError(
                f"{out}: expected a name ending in .safetensors, since the model becomes one file."
            )
        return dict.fromkeys(components, out)
    if (out.is_file() and not (to == "original" and is_file)) or (to == "diffusers" and is_file):
        raise ConfigError(f"{out}: expected a folder, since each component gets a folder in it.")
    has_text = any(PLACES[name].tokenizer for name in components)
    if is_file and (len(components) > 1 or has_text):
        why = "a text encoder stays one" if has_text else "each component becomes a file"
        raise ConfigError(f"{out}: expected a folder, since {why}.")
    return {
        name: out / PLACES[name].folder
        if to == "diffusers" or PLACES[name].tokenizer
        else (out if is_file else out / f"{name}.safetensors")
        for name in components
    }


def write_folder(
    files: ComponentFiles,
    out: Path,
    dtype: torch.dtype | None,
    tensors: Mapping[str, Tensor] | None = None,
    *,
    new: bool = False,
) -> None:
    """Write a component into its folder of a model folder.

    tensors  replace its own; None keeps them
    new      whether a folder that another process made meanwhile is refused

    Raises SaveError where it cannot be written.
    """
    place = PLACES[files.component]
    targets = [out / folder for folder in (place.folder, place.tokenizer) if folder]
    check_not_twice(out, files.component)
    own = published_tensors(files) if tensors is None else tensors
    chunks = {name: [tensor] for name, tensor in own.items()}
    with replacing(*targets, new=new) as folders:
        (folders[0] / CONFIG).write_text(_config_text(files), encoding="utf-8")
        write_stream(folders[0] / place.weights, chunks, {}, dtype)
        for name, text in tokenizer_files(files).items():
            (folders[1] / name).write_text(text, encoding="utf-8", newline="")


def _write_single(
    components: Components,
    out: Path,
    extra: Mapping[str, str],
    dtype: torch.dtype | None,
    *,
    new: bool,
) -> None:
    chunks, metadata = {}, dict(extra)
    for component, files in components.items():
        place = PLACES[component]
        for name, tensor in published_tensors(files).items():
            chunks[f"{place.folder}.{name}"] = [tensor]
        metadata[f"{place.folder}/{CONFIG}"] = _config_text(files)
        for name, text in tokenizer_files(files).items():
            metadata[f"{place.tokenizer}/{name}"] = text
    write_stream(out, chunks, metadata, dtype, new=new)


def _config_text(files: ComponentFiles) -> str:
    """config.json unchanged, or a new one where the sizes follow from shapes."""
    values = files.config_values()
    names = NAMES.get(files.component)
    if names is not None and (values or {}).get("_class_name") != names.class_name:
        config = COMPONENTS[files.component].config(files)
        assert isinstance(config, Section)
        return json_text(published_config(config, names))
    if files.config is not None:
        return files.config.read_text(encoding="utf-8")
    return read_header(files.weights).metadata[f"{PLACES[files.component].folder}/{CONFIG}"]


def tokenizer_files(files: ComponentFiles) -> dict[str, str]:
    """The files of a text encoder's tokenizer by name; empty for other components."""
    tokenizer = PLACES[files.component].tokenizer
    if not tokenizer:
        return {}
    if files.tokenizer is None:
        return files_in_metadata(read_header(files.weights).metadata, tokenizer)
    # In a folder shared by text encoder and tokenizer, the model's config is not the tokenizer's.
    return {
        path.name: _read_text(path)
        for pattern in TOKENIZER_FILES
        for path in sorted(files.tokenizer.glob(pattern))
        if path.name != CONFIG
    }


def extra_files(source: Path) -> dict[str, str]:
    """The `EXTRA_FILES` of a model by name."""
    if source.is_file():
        metadata = read_header(source).metadata
        return {name: metadata[name] for name in EXTRA_FILES if name in metadata}
    paths = {name: source / name for name in EXTRA_FILES}
    return {name: _read_text(path) for name, path in paths.items() if path.is_file()}


def _read_text(path: Path) -> str:
    """Raises ModelFolderError for a file that is not text or cannot be read."""
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFolderError(
            f"{path}: expected UTF-8 text, found: {error}; save it as UTF-8, or move it elsewhere."
        ) from None
