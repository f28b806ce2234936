"""Find a model: in the package, at a path, or on the hub. Only hub ids use the network."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from wuerstchen.errors import ModelFolderError

BUNDLED = "stickers"
"""The bundled model, by this name or none; an existing path of that name has precedence."""

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
HUB_FILES = ("*.json", "*.safetensors", "*.txt", "README.md")
"""The files fetched from a hub repository: no pickles, no code."""
TEXT_FILES = ("text_encoder/*.json", "text_encoder/*.safetensors", "tokenizer/*")
"""The same if only the text encoder of a pipeline is needed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hub:
    """How hub ids are looked up, in the terms of huggingface_hub."""

    revision: str | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False


USUAL = Hub()


def is_here(name: str) -> bool:
    """Whether `find` needs no hub: a path, or the bundled model."""
    return Path(name).exists() or name == BUNDLED


def is_hub_id(name: str | Path | None) -> bool:
    """Whether `find` would look it up on the hub."""
    return isinstance(name, str) and HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def find(name: str | Path | None, hub: Hub = USUAL, *, patterns: Sequence[str] = HUB_FILES) -> Path:
    """The folder or file of a model by its path or hub id `owner/name`.

    name  None or `stickers` is the bundled model

    Raises ModelFolderError where there is none.
    """
    if name is not None and Path(name).exists():
        return Path(name)
    if name is None or name == BUNDLED:
        return Path(str(files("wuerstchen") / "bundled" / BUNDLED))
    if isinstance(name, str) and HUB_ID.fullmatch(name):
        if (owner := Path(name).parent).is_dir():  # a typo in a path must not reach the hub
            raise ModelFolderError(
                f"Expected a model folder, found no {Path(name).name!r} in the folder {owner}; "
                "correct the path, or run from another folder to open the model of the hub."
            )
        return _download(name, hub, patterns)
    raise ModelFolderError(
        f"Expected a model folder or a hub id such as owner/name, found no folder at {str(name)!r}."
    )


def _download(hub_id: str, hub: Hub, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download  # half a second, needed for hub ids only
    from huggingface_hub.errors import HFValidationError

    try:
        found = snapshot_download(
            hub_id,
            revision=hub.revision,
            cache_dir=hub.cache_dir,
            local_files_only=hub.local_files_only,
            allow_patterns=list(patterns),
        )
    except (OSError, HFValidationError) as error:  # all errors of the hub's client are OSErrors
        where = "in the local cache of the hub" if hub.local_files_only else "on the hub"
        reason = str(error).strip().split("\n")[0]
        raise ModelFolderError(
            f"Expected a model folder or a hub id, found no folder {hub_id!r} here, and opening "
            f"it {where} failed: {reason}"
        ) from None
    return Path(found)
