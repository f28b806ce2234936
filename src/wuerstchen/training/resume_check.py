"""Refuse to resume a run whose config or data changed."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from wuerstchen.config import Config, Section
from wuerstchen.errors import TrainingError
from wuerstchen.parsing import OWN, ParseError, parse_json, parse_yaml, read_bytes
from wuerstchen.training.checkpoints import Checkpoints
from wuerstchen.training.stage import RunName

DATA = "data.json"
"""Report of the data, in the folder of a run."""

MAY_CHANGE = frozenset(
    {
        *(
            "images",
            "learning_rate",
            "muon_rate",
            "gradient_accumulation",
            "gradient_checkpointing",
            "sharded",
        ),
        *("checkpoint_every", "keep_checkpoints", "log_every", "export"),
        *("validate_every", "validation_images"),
        *("path", "cache_gib", "latent_cache"),
    }
)
"""Keys that may change during a run: length, speed, logging, and the location of the data. They
change neither the networks nor the training of an image."""

NEVER_MATTER = frozenset(
    {
        *("gradient_accumulation", "gradient_checkpointing", "sharded"),
        *("checkpoint_every", "keep_checkpoints", "log_every"),
        *("path", "cache_gib", "latent_cache"),
    }
)
"""Those of them that do not change the result of a whole run either."""

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
    """The changed keys that affect the rest of a run of this stage, with old and new value.

    Raises TrainingError if the run's config is missing or cannot be read.
    """
    return [text for key, text in _changes(run, config, stage) if _last(key) not in MAY_CHANGE]


def changed_since_finished(run: Path, config: Config, name: RunName) -> list[str]:
    """The changed keys that would change the result of run `name`, with old and new value.

    Raises TrainingError if the run's config is missing or cannot be read.
    """
    # A pretraining is independent of the training that reads its result.
    other = f"stage_{name[0]}.training." if name.endswith("-pretraining") else "\0"
    return [
        text
        for key, text in _changes(run, config, name[0])
        if _last(key) not in NEVER_MATTER and not key.startswith(other)
    ]


def _changes(run: Path, config: Config, stage: str) -> list[tuple[str, str]]:
    path = run / "config.yaml"
    try:
        values = parse_yaml(read_bytes(path))
    except (OSError, ParseError):
        values = None
    if not isinstance(values, dict):
        raise TrainingError(
            f"{path}: expected the config of the run, found "
            f"{'something else' if path.exists() else 'nothing'}; delete {run} to start again, or "
            "pass --allow-changes to resume with the present config."
        )
    return [
        (key, f"{key} was {was!r} and is {value!r}")
        for key, was, value in _differences(values, config)
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
    """The digest of the training images of a run; empty if none was recorded.

    Raises TrainingError if the record is damaged.
    """
    path = run / DATA
    if not path.exists():
        return ""
    try:
        values = parse_json(read_bytes(path, OWN.bytes), OWN)
    except (OSError, ParseError):
        values = None
    if not isinstance(values, dict):
        raise TrainingError(
            f"{path}: expected the report of the run's data, found something else; pass "
            "--allow-changes to resume without comparing the data."
        )
    return str(values.get("digest", ""))


def _affects(key: str, stage: str) -> bool:
    section = key.partition(".")[0]
    return section in ("seed", "data", f"stage_{stage}", *_SHARED_SECTIONS[stage])


def _last(key: str) -> str:
    """The last part of the key of a section; empty for keys such as `seed`."""
    return key.partition(".")[2].rpartition(".")[2]


def _differences(
    before: Mapping[object, object], now: Section, prefix: str = ""
) -> Iterator[tuple[str, object, object]]:
    """(key, old, new) of dotted keys whose values differ, or that this version does not know.

    A key that is missing, as it is of a later version, counts with its default.
    """
    fields = type(now).model_fields
    for name in before.keys() - fields.keys():
        yield f"{prefix}{name}", before[name], "not a key of this version"
    for name, value in now.model_dump(mode="json").items():
        section = getattr(now, name)
        was = before[name] if name in before else _default(fields[name])
        if isinstance(section, Section) and isinstance(was, dict):
            yield from _differences(was, section, f"{prefix}{name}.")
        elif was != value:
            yield prefix + name, was, value


def _default(field: FieldInfo) -> object:
    if field.is_required():
        return "missing"
    return to_jsonable_python(field.get_default(call_default_factory=True, validated_data={}))
