"""What a path has besides the components found there: files, networks, metadata."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from wuerstchen.weights.component_files import ComponentFiles
from wuerstchen.weights.convert import EXTRA_FILES, TOKENIZER_FILES
from wuerstchen.weights.folder import INDEX, SCHEDULERS
from wuerstchen.weights.headers import read_header
from wuerstchen.weights.layout import PLACES, ComponentName
from wuerstchen.weights.shards import is_shard_index, shard_of_tensors

WRITTEN_ANEW = {INDEX, *SCHEDULERS, "receipt.json", "receipt.html"}
"""Files and folders of a model that each model folder gets of its own."""
MOST_NAMED = 12


def left_out(path: Path, components: Mapping[ComponentName, ComponentFiles]) -> list[str]:
    """The names of everything at `path` that belongs to none of its components; [] if nothing.

    Hidden files, and what every model folder gets anew, are not counted.
    """
    if path.is_file():
        return _in_file(path, components)
    used = {file.absolute() for files in components.values() for file in _files(files)}
    used |= {path.absolute() / name for name in EXTRA_FILES}
    root = path.absolute()
    return [
        f"{entry.relative_to(root)}{'/' if entry.is_dir() else ''}" for entry in _unused(root, used)
    ]


def listed(names: list[str]) -> str:
    """The names for a sentence."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _files(files: ComponentFiles) -> Iterator[Path]:
    """The files that a component is read from."""
    yield files.weights
    if is_shard_index(files.weights):
        yield from shard_of_tensors(files.weights).values()
    if files.config is not None:
        yield files.config
    if files.tokenizer is not None:
        for pattern in TOKENIZER_FILES:
            yield from files.tokenizer.glob(pattern)


def _unused(folder: Path, used: set[Path]) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry in used or entry.name.startswith(".") or entry.name in WRITTEN_ANEW:
            continue
        if entry.is_dir() and any(file.is_relative_to(entry) for file in used):
            yield from _unused(entry, used)
        else:
            yield entry


def _in_file(path: Path, components: Mapping[ComponentName, ComponentFiles]) -> list[str]:
    header = read_header(path)
    prefixes = {files.prefix for files in components.values() if files.weights == path}
    tensors = [
        f"{len(group):,} tensors of {prefix or next(iter(group))}"
        for prefix, group in header.groups().items()
        if prefix not in prefixes
    ]
    places = [PLACES[name] for name in components]
    own = {place.folder for place in places} | {place.tokenizer for place in places}
    metadata = [
        f"metadata {key}"
        for key in header.metadata
        if key not in ("format", *EXTRA_FILES) and key.partition("/")[0] not in own
    ]
    return tensors + [f"{key} of the training" for key in header.skipped] + metadata
