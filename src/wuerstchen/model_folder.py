"""Where a model folder is, and what its `wuerstchen.json` says: size and settings that suit it.

`weights.py` reads the networks in it. Only a hub id reaches out to the network.
"""

import re
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from reprlib import repr as brief

from pydantic import Field, ValidationError, field_validator

from wuerstchen.aside import write_file
from wuerstchen.config import Section
from wuerstchen.errors import ModelFolderError
from wuerstchen.geometry import SIZE_STEP

BUNDLED = "emoji"
"""The model that comes with the package."""

INFO_FILE = "wuerstchen.json"

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
HUB_FILES = ["*.json", "*.safetensors", "*.txt"]
"""What is fetched of a hub repository: no pickles, no code."""


class Defaults(Section):
    """What a call of the pipeline uses for what it was not given; names of its arguments."""

    prior_num_inference_steps: int | None = Field(default=None, gt=0)
    """Steps of Stage C, evenly spaced; null: the published list of 29."""
    num_inference_steps: int = Field(default=12, gt=0)
    """Steps of Stage B."""
    decoder_timesteps: tuple[float, ...] | None = None
    """Falling times of Stage B in place of even steps."""
    prior_guidance_scale: float = 4.0
    decoder_guidance_scale: float = 0.0

    @field_validator("decoder_timesteps")
    @classmethod
    def _fall(cls, times: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if times is not None:
            falling = all(t > s for t, s in pairwise(times))
            if len(times) < 2 or not falling or times[0] > 1 or times[-1] < 0:
                raise ValueError(
                    "Times should be at least two falling times between 1 (noise) and 0 (data)"
                )
        return times


class ModelInfo(Section):
    """The file `wuerstchen.json` of a model folder; models without it have these values."""

    name: str = ""
    """What the model is called in pictures' metadata; empty: the name of its folder."""
    size: int = Field(default=1024, gt=0, multiple_of=SIZE_STEP, strict=True)
    """Side of its pictures in pixels where no other is asked for."""
    defaults: Defaults = Defaults()


def find(
    name: str | Path | None,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder of a model: of the bundled one, of a path, or of a hub id `owner/name`.

    Raises ModelFolderError where there is none.
    """
    if name is None:
        return Path(str(files("wuerstchen") / "bundled" / BUNDLED))
    if Path(name).is_dir():
        return Path(name)
    if isinstance(name, str) and HUB_ID.fullmatch(name):
        if (owner := Path(name).parent).is_dir():  # a slip in a path is nobody's business outside
            raise ModelFolderError(
                f"Expected a model folder, found no {Path(name).name!r} in the folder {owner}; "
                "correct the path, or call from elsewhere to mean the hub."
            )
        return _download(name, revision, cache_dir, local_files_only)
    raise ModelFolderError(
        f"Expected a model folder or a hub id such as owner/name, found no folder at {str(name)!r}."
    )


def _download(
    hub_id: str, revision: str | None, cache_dir: str | Path | None, local_files_only: bool
) -> Path:
    from huggingface_hub import snapshot_download  # half a second, needed for hub ids only
    from huggingface_hub.errors import HFValidationError

    try:
        found = snapshot_download(
            hub_id,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            allow_patterns=HUB_FILES,
        )
    except (OSError, HFValidationError) as error:  # all errors of the hub's client are OSErrors
        where = "in the local cache of the hub" if local_files_only else "on the hub"
        reason = str(error).strip().split("\n")[0]
        raise ModelFolderError(
            f"Expected a model folder or a hub id, found no folder {hub_id!r} here, and opening "
            f"it {where} failed: {reason}"
        ) from None
    return Path(found)


def read_info(folder: Path, called: str) -> ModelInfo:
    """What `wuerstchen.json` says, or the defaults where there is none.

    called  the name of a model that does not say its own
    """
    path = folder / INFO_FILE
    if not path.is_file():
        return ModelInfo(name=called)
    try:
        info = ModelInfo.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        reason = first["msg"].removeprefix("Value error, ")
        raise ModelFolderError(
            f"{path}: {key} cannot be used ({reason}; found {brief(first['input'])}); "
            "correct it, or remove the file to use the defaults."
        ) from None
    return info if info.name else info.model_copy(update={"name": called})


def write_info(folder: Path, info: ModelInfo) -> None:
    """Write `wuerstchen.json`; SaveError where that cannot be."""
    write_file(folder / INFO_FILE, (info.model_dump_json(indent=2) + "\n").encode())
