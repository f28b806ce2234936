"""Weights in several safetensors files with an index, as diffusers and transformers save them."""

from pathlib import Path

from wuerstchen.errors import ModelFolderError
from wuerstchen.weights.files import read_json

SUFFIX = ".safetensors"
INFIX = ".safetensors.index"


def is_shard_index(path: Path) -> bool:
    """Whether the name is that of an index, NAME.safetensors.index.json or with a variant."""
    return path.suffix == ".json" and INFIX in path.name


def shard_of_tensors(index: Path) -> dict[str, Path]:
    """The file of each tensor; shards are next to their index.

    Raises ModelFolderError where a shard is missing, or is named by more than a file name.
    """
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFolderError(
            f"{index}: expected a weight_map of tensors to files, found none; copy it again."
        )
    for name in dict.fromkeys(map(str, weight_map.values())):
        if "/" in name or "\\" in name or not name.endswith(SUFFIX):
            raise ModelFolderError(
                f"{index}: expected names of {SUFFIX} files in its folder, found {name!r}; "
                "correct or copy it again."
            )
        if not (index.parent / name).is_file():
            raise ModelFolderError(
                f"{index.parent} lacks {name}, which {index.name} names; copy the folder again as "
                "a whole."
            )
    return {str(key): index.parent / str(name) for key, name in weight_map.items()}
