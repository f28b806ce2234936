"""Whether a run is gone on with as it was begun: which keys of its config are others now."""

import json
from collections.abc import Iterator
from pathlib import Path

import yaml

from wuerstchen.config import Config
from wuerstchen.errors import TrainingError
from wuerstchen.training.checkpoints import Checkpoints

DATA = "data.json"
"""What a run read, in its folder."""

FREE = frozenset(
    {
        *("images", "learning_rate", "gradient_accumulation", "gradient_checkpointing"),
        *(
            "checkpoint_every",
            "validate_every",
            "validation_images",
            "log_every",
            "keep_checkpoints",
            "export",
            "sharded",
        ),
        *("path", "cache_gib", "latent_cache"),
    }
)
"""Keys that may change under way: how long, how fast, how often it is looked at; where data lies
and how it is kept. They change no network, and not what an image is trained with."""


_READ_BY = {"a": (), "b": ("text", "compressor"), "c": ("text",)}
"""Sections that a stage reads beside its own, the data and the seed."""


def check_unchanged(run: Path, config: Config, stage: str) -> None:
    """Raise TrainingError that names the keys of this stage which the run was not begun with.

    run    the folder of a run; where it holds no checkpoint, nothing was begun
    stage  a, b or c
    """
    changed = changed_keys(run, config, stage) if Checkpoints(run, 1).started() else []
    if changed:
        raise TrainingError(
            f"{run} was begun with another config: {'; '.join(changed)}. Set it back, delete the "
            "folder to begin anew, or pass --allow-changes to go on all the same."
        )


def changed_keys(run: Path, config: Config, stage: str) -> list[str]:
    """What counts in this stage and was something else when the run was begun: key, was and is.

    Raises TrainingError where its config cannot be read; a run without one was not begun.
    """
    path = run / "config.yaml"
    if not path.is_file():
        return []
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        values = None
    if not isinstance(values, dict):
        raise TrainingError(
            f"{path}: expected the config that the run was begun with, found something else; "
            f"delete {run} to begin anew."
        )
    return [
        f"{key} was {was!r} and is {value!r}"
        for key, was, value in _differences(values, config.model_dump(mode="json"))
        if _counts(key, stage)
    ]


def check_same_data(run: Path, digest: str) -> None:
    """Raise TrainingError where this run was begun with other images or captions.

    digest  of the training images, the same wherever they lie
    """
    before = begun_with(run)
    if before and before != digest and Checkpoints(run, 1).started():
        raise TrainingError(
            f"{run} was begun with other images or captions than data.path has now. Name those "
            "again, delete the folder to begin anew, or pass --allow-changes to go on all the same."
        )


def begun_with(run: Path) -> str:
    """The digest of the training images of a run; empty where none was written down."""
    try:
        values = json.loads((run / DATA).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(values.get("digest", "")) if isinstance(values, dict) else ""


def _counts(key: str, stage: str) -> bool:
    section, _, rest = key.partition(".")
    if rest.rpartition(".")[2] in FREE:
        return False
    return section in ("seed", "data", f"stage_{stage}", *_READ_BY[stage])


def _differences(
    before: dict[str, object], now: dict[str, object], head: str = ""
) -> Iterator[tuple[str, object, object]]:
    """Dotted keys that both have and that hold something else: key, was, is."""
    for name, value in now.items():
        was = before.get(name, value)  # a key that came with a later version
        if isinstance(was, dict) and isinstance(value, dict):
            yield from _differences(was, value, f"{head}{name}.")
        elif was != value:
            yield head + name, was, value
