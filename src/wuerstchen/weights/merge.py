"""Merge two models of the same sizes by interpolating their weights.

The published Stage C is such a merge: half from the run on all images, half from its continuation
on selected ones (appendix E.3).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from wuerstchen.errors import ConfigError, ModelFolderError
from wuerstchen.weights.component import published_tensors
from wuerstchen.weights.component_files import ComponentFiles, has_component
from wuerstchen.weights.convert import (
    allow_replacing,
    check_inputs,
    check_target,
    write_extra,
    write_folder,
)
from wuerstchen.weights.folder import write_index
from wuerstchen.weights.layout import PLACES, REQUIRED, ComponentName
from wuerstchen.weights.tokenizer import same_tokens


def merge(
    first: Mapping[ComponentName, ComponentFiles],
    second: Mapping[ComponentName, ComponentFiles],
    out: Path,
    fraction: float,
    *,
    source: Path | None = None,
    others: Sequence[Path] = (),
    overwrite: bool = False,
) -> list[Path]:
    """Write a model folder between two models; returns the folders of its components.

    fraction  of the second model, 0 to 1: first + fraction * (second - first), computed in fp32
              and stored in the dtype of the first
    source    of the first model, whose wuerstchen.json, README.md and LICENSE are copied too
    others    further paths that components are read from, such as the second model

    Components that the second model lacks are copied from the first.

    Raises ConfigError for a fraction outside [0, 1] and for an `out` inside a model or around it;
    ModelFolderError where sizes or tokenizers differ; SaveError where the output would replace
    something.
    """
    if not 0 <= fraction <= 1:
        raise ConfigError(f"The fraction must be between 0 and 1, found {fraction}.")
    targets = {name: out / PLACES[name].folder for name in first}
    check_inputs([*([] if source is None else [source]), *others], targets, out)
    extra = check_target(targets, out, "diffusers", source, overwrite=overwrite)
    for name in [name for name in first if name in second]:
        _check_same_sizes(first[name], second[name])
    if overwrite:
        allow_replacing(targets, out)
    for name, files in first.items():
        merged = _merged(files, second[name], fraction) if name in second else None
        write_folder(files, out, None, merged, new=not overwrite)
    if len(first) > 1:
        write_extra(extra, out)
    if all(has_component(out, name) for name in REQUIRED):
        write_index(out, overwrite=overwrite)
    return list(targets.values())


def _check_same_sizes(one: ComponentFiles, other: ComponentFiles) -> None:
    """Raise ModelFolderError unless both have the same tensors and make the same tokens."""
    shapes = [
        {name: tuple(tensor.shape) for name, tensor in published_tensors(each).items()}
        for each in (one, other)
    ]
    for name in shapes[0] | shapes[1]:
        found = [each.get(name, "none") for each in shapes]
        if found[0] != found[1]:
            raise ModelFolderError(
                f"{other.weights}: expected {one.title} of the same sizes as {one.weights}, found "
                f"{name} of {found[1]} instead of {found[0]}; merge models of one config."
            )
    if PLACES[one.component].tokenizer and not same_tokens(one, other):
        raise ModelFolderError(
            f"{other.weights}: expected {one.title} with the tokenizer of {one.weights}, found "
            "another one; merge models that share a tokenizer, such as one and its fine-tuning."
        )


def _merged(one: ComponentFiles, other: ComponentFiles, fraction: float) -> dict[str, Tensor]:
    second = published_tensors(other)
    return {
        name: torch.lerp(tensor.float(), second[name].float(), fraction).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in published_tensors(one).items()
    }
