"""Two models of the same sizes to the one between them, number by number.

The published Stage C is such a mixture: half of the run on all images, half of the one that went
on with selected ones (appendix E.3).
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from wuerstchen.atomic_write import write_file
from wuerstchen.errors import ConfigError, ModelFolderError
from wuerstchen.weights.components import published_tensors
from wuerstchen.weights.convert import beside_of, check_apart, check_free, write_folder
from wuerstchen.weights.folder import PARTS, finish_folder
from wuerstchen.weights.layout import PLACES, Part, has_part
from wuerstchen.weights.parts import PartFiles
from wuerstchen.weights.tokenizer import counts_alike


def merge(
    first: Mapping[Part, PartFiles],
    second: Mapping[Part, PartFiles],
    out: Path,
    share: float,
    *,
    source: Path | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write a model folder between two models; returns the folders of its parts.

    share   of the second model, 0 to 1: first + share * (second - first), in fp32, and then in the
            numbers of the first
    source  of the first model: its wuerstchen.json, README.md and LICENSE come along

    Parts that the second model lacks are the first one's.

    Raises ConfigError for a share that is none and for an `out` inside of `source`;
    ModelFolderError where parts have other sizes or other words; SaveError where something is in
    the place of what is written.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"The share of the second model must be between 0 and 1, found {share}.")
    targets = {part: out / PLACES[part].folder for part in first}
    beside = {} if source is None else beside_of(source)
    if source is not None:
        check_apart(source, out)
    if not overwrite:
        check_free(first, targets, out, "diffusers", beside)
    both = {part: (files, second[part]) for part, files in first.items() if part in second}
    for one, other in both.values():
        _check_alike(one, other)
    for part, files in first.items():
        mixed = _mixed(files, second[part], share) if part in both else None
        write_folder(files, out, None, mixed)
    if len(first) > 1:
        for name, text in beside.items():
            write_file(out / name, text.encode())
    if all(has_part(out, part) for part in PARTS):
        finish_folder(out)
    return list(targets.values())


def _check_alike(one: PartFiles, other: PartFiles) -> None:
    """Raise ModelFolderError unless both have the same tensors, and read texts the same way."""
    shapes = [
        {name: tuple(tensor.shape) for name, tensor in published_tensors(each).items()}
        for each in (one, other)
    ]
    for name in shapes[0] | shapes[1]:
        found = [each.get(name, "none") for each in shapes]
        if found[0] != found[1]:
            raise ModelFolderError(
                f"{other.weights}: expected {one.title} of the same sizes as {one.weights}, found "
                f"{name} of {found[1]} in place of {found[0]}; merge models of one config."
            )
    if PLACES[one.part].tokenizer and not counts_alike(one, other):
        raise ModelFolderError(
            f"{other.weights}: expected {one.title} with the tokenizer of {one.weights}, found "
            "another one; merge models that count words alike, such as one and its fine-tuning."
        )


def _mixed(one: PartFiles, other: PartFiles, share: float) -> dict[str, Tensor]:
    second = published_tensors(other)
    return {
        name: torch.lerp(tensor.float(), second[name].float(), share).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in published_tensors(one).items()
    }
