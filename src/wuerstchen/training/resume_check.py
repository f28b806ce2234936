"""Refuse to resume a run whose config or data changed."""

from collections.abc import Iterator
from pathlib import Path

from wuerstchen.config import Config
from wuerstchen.errors import TrainingError
from wuerstchen.parsing import OWN, ParseError, parse_json, parse_yaml, read_bytes
from wuerstchen.training.checkpoints import Checkpoints

DATA = "data.json"
"""Report of the data, in the folder of a run."""

MAY_CHANGE = frozenset(
    {
        *("images", "learning_rate", "gradient_accumulation", "gradient_checkpointing", "sharded"),
        *("checkpoint_every", "keep_checkpoints", "log_every", "export"),
        *("validate_every", "validation_images"),
        *("path", "cache_gib", "latent_cache"),
    }
)
"""Keys that may change during a run: length, speed, logging, and the location of the data. They
change neither the networks nor the training of an image."""

_SHARED_SECTIONS = {"a": (), "b": ("text", "compressor"), "c": ("text",)}
"""Sections that a stage reads in addition to its own, the data and the seed."""


def check_unchanged(run: Path, config: Config, stage: str) -> None:
    """Raise TrainingError if the config of a started run changed for this stage.

    run    the folder of a run; it has not started if there is no checkpoint
    stage  a, b or c
    """
    changed = changed_keys(run, config, stage) if Checkpoints(run, 1).started() else []
    if changed:
        raise TrainingError(
            f"{run} was started with another config: {'; '.join(changed)}. Restore it, delete the "
            "folder to start again, or pass --allow-changes to resume anyway."
        )


def changed_keys(run: Path, config: Config, stage: str) -> list[str]:
    """The changed keys that affect this stage, with old and new value.

    Raises TrainingError if the run's config cannot be read; a run without one has not started.
    """
    path = run / "config.yaml"
    if not path.is_file():
        return []
    try:
        values = parse_yaml(read_bytes(path))
    except (OSError, ParseError):
        values = None
    if not isinstance(values, dict):
        raise TrainingError(
            f"{path}: expected the config of the run, found something else; delete {run} to start "
            "again."
        )
    return [
        f"{key} was {was!r} and is {value!r}"
        for key, was, value in _differences(values, config.model_dump(mode="json"))
        if _affects(key, stage)
    ]


def check_same_data(run: Path, digest: str) -> None:
    """Raise TrainingError if this run was started with other images or captions.

    digest  of the training images, independent of their location
    """
    before = data_digest(run)
    if before and before != digest and Checkpoints(run, 1).started():
        raise TrainingError(
            f"{run} was started with other images or captions than data.path has now. Restore "
            "those, delete the folder to start again, or pass --allow-changes to resume anyway."
        )


def data_digest(run: Path) -> str:
    """The digest of the training images of a run; empty if none was recorded."""
    try:
        values = parse_json(read_bytes(run / DATA, OWN.bytes), OWN)
    except (OSError, ValueError):
        return ""
    return str(values.get("digest", "")) if isinstance(values, dict) else ""


def _affects(key: str, stage: str) -> bool:
    section, _, rest = key.partition(".")
    if rest.rpartition(".")[2] in MAY_CHANGE:
        return False
    return section in ("seed", "data", f"stage_{stage}", *_SHARED_SECTIONS[stage])


def _differences(
    before: dict[str, object], now: dict[str, object], prefix: str = ""
) -> Iterator[tuple[str, object, object]]:
    """(key, old, new) of dotted keys whose values differ, or that this version does not know."""
    for name in before.keys() - now.keys():
        yield prefix + name, before[name], "not a key of this version"
    for name, value in now.items():
        was = before.get(name, value)  # the default for a key of a later version
        if isinstance(was, dict) and isinstance(value, dict):
            yield from _differences(was, value, f"{prefix}{name}.")
        elif was != value:
            yield prefix + name, was, value
