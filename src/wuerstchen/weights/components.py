"""Networks out of their files: outlines without weights, weights by our names, and both together.

Weights are mapped: they share the pages of the file where the file has the wanted kind of numbers,
and are converted tensor by tensor where it has not. What must outlive its file is copied.
"""

from collections.abc import Collection, Mapping
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from wuerstchen.config import CompressorModel, Section, StageAModel, StageBModel, StageCModel
from wuerstchen.errors import ModelFolderError
from wuerstchen.models.compressor import MEAN, SPREAD, Compressor
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.weights import names as tables
from wuerstchen.weights.headers import mapped, read_header
from wuerstchen.weights.identify import networks, refuse_foreign
from wuerstchen.weights.infer_config import inferred
from wuerstchen.weights.names import Names, our_key, published_key, read_config
from wuerstchen.weights.original import published_names, spot
from wuerstchen.weights.parts import PartFiles
from wuerstchen.weights.text_names import text_names

N = TypeVar("N", bound=nn.Module)
S = TypeVar("S", bound=Section)


def stage_a_config(part: PartFiles) -> StageAModel:
    return _config(part, tables.STAGE_A, StageAModel)


def stage_b_config(part: PartFiles) -> StageBModel:
    return _config(part, tables.STAGE_B, StageBModel)


def stage_c_config(part: PartFiles) -> StageCModel:
    return _config(part, tables.STAGE_C, StageCModel)


def compressor_config(part: PartFiles) -> CompressorModel:
    return _config(part, tables.COMPRESSOR, CompressorModel)


def outline_stage_a(part: PartFiles) -> StageA:
    """Stage A without weights, on the meta device in eval mode; no weight is read.

    Keys and shapes in the file are compared with it, so that `tensors` fill it. The same holds for
    the other outlines. Raises ModelFolderError where they do not fit.
    """
    config = stage_a_config(part)
    with torch.device("meta"):
        network = StageA(config)
    return _checked(network, part, tables.STAGE_A)


def outline_stage_b(part: PartFiles) -> StageB:
    config = stage_b_config(part)
    with torch.device("meta"):
        network = StageB(config)
    return _checked(network, part, tables.STAGE_B)


def outline_stage_c(part: PartFiles) -> StageC:
    config = stage_c_config(part)
    with torch.device("meta"):
        network = StageC(config)
    return _checked(network, part, tables.STAGE_C)


def outline_compressor(part: PartFiles) -> Compressor:
    """Mean and spread of the images are in no file: they are real here already."""
    config = compressor_config(part)
    with torch.device("meta"):
        network = Compressor(config)
    network.mean = torch.tensor(MEAN).view(1, 3, 1, 1)
    network.spread = torch.tensor(SPREAD).view(1, 3, 1, 1)
    return _checked(network, part, tables.COMPRESSOR)


def open_stage_a(part: PartFiles, dtype: torch.dtype = torch.float32) -> StageA:
    """Stage A on the CPU in eval mode, its weights mapped; the same holds for the others."""
    return filled(outline_stage_a(part), part, dtype)


def open_stage_b(part: PartFiles, dtype: torch.dtype = torch.float32) -> StageB:
    return filled(outline_stage_b(part), part, dtype)


def open_stage_c(part: PartFiles, dtype: torch.dtype = torch.float32) -> StageC:
    return filled(outline_stage_c(part), part, dtype)


def open_compressor(part: PartFiles, dtype: torch.dtype = torch.float32) -> Compressor:
    return filled(outline_compressor(part), part, dtype)


def tensors(part: PartFiles, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The weights by the names in the state of their network (of a TextEncoder: `model.…`).

    Those that the file has as `dtype` are mapped, others converted; counters stay what they are.
    """
    return {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in _mapped(part).items()
    }


def published_tensors(part: PartFiles) -> dict[str, Tensor]:
    """The weights by diffusers' names, mapped and as they are; those of text as in their file."""
    stored = read_header(part.weights).below(part.prefix)
    spots = dict(pair for key in stored for pair in published_names(key, part.naming))
    found = mapped(part.weights, {part.prefix + at.key for at in spots.values()})
    return {name: at.cut(found[part.prefix + at.key]) for name, at in spots.items()}


def stored_dtype(part: PartFiles) -> torch.dtype:
    """The kind of number that most of the part's weights have in their file."""
    counts: dict[torch.dtype, int] = {}
    for stored in read_header(part.weights).below(part.prefix).values():
        if stored.dtype.is_floating_point:
            counts[stored.dtype] = counts.get(stored.dtype, 0) + stored.count
    return max(counts, key=lambda dtype: counts[dtype], default=torch.float32)


def filled(network: N, part: PartFiles, dtype: torch.dtype = torch.float32) -> N:
    """The outline with its weights, mapped where that can be."""
    network.load_state_dict(tensors(part, dtype), assign=True)
    return network.to(dtype)  # for what is not in the file


def copied(network: N, part: PartFiles) -> N:
    """The outline with its weights in fp32, independent of the file from then on."""
    state = {
        name: tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in _mapped(part).items()
    }
    network.load_state_dict(state, assign=True)
    return network


def _config(part: PartFiles, names: Names, section: type[S]) -> S:
    values = part.config_values()
    ours = values is not None and not (
        # The compressor has no class in diffusers: whatever else describes it, shapes say more.
        part.part == "compressor" and values.get("_class_name") != names.class_name
    )
    if values is not None and ours:
        return read_config(values, part.config or part.weights, names, section)
    found = networks(read_header(part.weights)).get(part.part)
    if found is None:
        raise ModelFolderError(
            f"{part.weights}: expected {part.title}, found no keys that it has; name another file."
        )
    refuse_foreign(found, part.weights)
    return cast("S", inferred(part.weights, part.part, found.tensors))


def _mapped(part: PartFiles) -> dict[str, Tensor]:
    named = published_tensors(part)
    if part.part in ("text_b", "text_c"):
        return {f"model.{name}": named[key] for key, name in text_names(named).items()}
    names = tables.NETWORKS[part.part]
    return {our_key(name, names): tensor for name, tensor in named.items()}


def _checked(network: N, part: PartFiles, names: Names) -> N:
    stored = read_header(part.weights).below(part.prefix)
    state = network.state_dict()
    spots = {name: spot(published_key(name, names), part.naming) for name in state}
    _check_keys(part, dict.fromkeys(at.key for at in spots.values()), stored)
    wrong = [
        (name, at)
        for name, at in spots.items()
        if tuple(state[name].shape) != at.rows(stored[at.key].shape)
    ]
    if wrong:
        name, at = wrong[0]
        more = f" ({len(wrong) - 1} more differ)" if len(wrong) > 1 else ""
        expected = list(state[name].shape)
        if at.third is not None:
            expected[0] *= 3
        raise ModelFolderError(
            f"{part.weights}: {at.key} should have the shape {expected} by {part.described_by}, "
            f"found {list(stored[at.key].shape)}{more}."
        )
    return network.eval()


def _check_keys(part: PartFiles, wanted: Collection[str], stored: Mapping[str, object]) -> None:
    parts = [
        f"{len(keys)} {word} ({_some(keys)})"
        for word, keys in (
            ("missing", [key for key in wanted if key not in stored]),
            ("unexpected", [key for key in stored if key not in wanted]),
        )
        if keys
    ]
    if parts:
        raise ModelFolderError(
            f"{part.weights}: expected {len(wanted)} tensors, found {len(stored)}: "
            f"{', '.join(parts)}; the weights do not belong to {part.described_by}."
        )


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
