"""Saving and loading the four networks of ours.

Saving raises SaveError and leaves what was there; `dtype` may be bf16 or fp16 to halve the file.
Loading gives fp32 on the CPU in eval mode and raises ModelFolderError.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from wuerstchen.config import CompressorModel, Section, StageAModel, StageBModel, StageCModel
from wuerstchen.errors import ModelFolderError
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.weights import names as tables
from wuerstchen.weights.files import read_tensors, replacing, write_json, write_tensors
from wuerstchen.weights.layout import CONFIG, PLACES, Part, need_part
from wuerstchen.weights.names import Names, published_config, published_key, read_config


def save_stage_a(folder: Path, network: StageA, dtype: torch.dtype = torch.float32) -> None:
    """Write Stage A into `folder`/vqgan."""
    _save(folder, "stage_a", network, network.config, tables.STAGE_A, dtype)


def save_stage_b(folder: Path, network: StageB, dtype: torch.dtype = torch.float32) -> None:
    """Write Stage B into `folder`/decoder."""
    _save(folder, "stage_b", network, network.config, tables.STAGE_B, dtype)


def save_stage_c(folder: Path, network: StageC, dtype: torch.dtype = torch.float32) -> None:
    """Write Stage C into `folder`/prior_prior."""
    _save(folder, "stage_c", network, network.config, tables.STAGE_C, dtype)


def save_compressor(folder: Path, network: Compressor, dtype: torch.dtype = torch.float32) -> None:
    """Write the compressor into `folder`/compressor; diffusers has no class for it."""
    _save(folder, "compressor", network, network.config, tables.COMPRESSOR, dtype)


def load_stage_a(folder: Path) -> StageA:
    """Read `folder`/vqgan."""
    config = read_config(need_part(folder, "stage_a") / CONFIG, tables.STAGE_A, StageAModel)
    with torch.device("meta"):  # no time is spent on weights that are replaced
        network = StageA(config)
    _fill(network, folder, "stage_a", tables.STAGE_A)
    return network


def load_stage_b(folder: Path) -> StageB:
    """Read `folder`/decoder."""
    config = read_config(need_part(folder, "stage_b") / CONFIG, tables.STAGE_B, StageBModel)
    with torch.device("meta"):
        network = StageB(config)
    _fill(network, folder, "stage_b", tables.STAGE_B)
    return network


def load_stage_c(folder: Path) -> StageC:
    """Read `folder`/prior_prior."""
    config = read_config(need_part(folder, "stage_c") / CONFIG, tables.STAGE_C, StageCModel)
    with torch.device("meta"):
        network = StageC(config)
    _fill(network, folder, "stage_c", tables.STAGE_C)
    return network


def load_compressor(folder: Path) -> Compressor:
    """Read `folder`/compressor."""
    path = need_part(folder, "compressor") / CONFIG
    # Not on the meta device: mean and spread of the pictures are not in the file.
    network = Compressor(read_config(path, tables.COMPRESSOR, CompressorModel))
    _fill(network, folder, "compressor", tables.COMPRESSOR)
    return network


def _save(
    folder: Path, part: Part, network: nn.Module, config: Section, names: Names, dtype: torch.dtype
) -> None:
    place = PLACES[part]
    tensors = {published_key(name, names): value for name, value in network.state_dict().items()}
    with replacing(folder / place.folder) as (aside,):
        write_json(aside / CONFIG, published_config(config, names))
        write_tensors(aside / place.weights, tensors, dtype)


def _fill(network: nn.Module, folder: Path, part: Part, names: Names) -> None:
    path = need_part(folder, part) / PLACES[part].weights
    found = read_tensors(path)
    wanted = {published_key(name, names): name for name in network.state_dict()}
    _check_keys(path, wanted, found)
    _check_shapes(path, network.state_dict(), wanted, found)
    network.load_state_dict({wanted[key]: found[key] for key in wanted}, assign=True)
    network.eval()


def _check_keys(path: Path, wanted: Collection[str], found: Collection[str]) -> None:
    parts = [
        f"{len(keys)} {word} ({_some(keys)})"
        for word, keys in (
            ("missing", [key for key in wanted if key not in found]),
            ("unexpected", [key for key in found if key not in wanted]),
        )
        if keys
    ]
    if parts:
        raise ModelFolderError(
            f"{path}: expected {len(wanted)} tensors, found {len(found)}: {', '.join(parts)}; "
            f"the weights do not belong to the {CONFIG} beside them."
        )


def _check_shapes(
    path: Path,
    network: Mapping[str, Tensor],
    wanted: Mapping[str, str],
    found: Mapping[str, Tensor],
) -> None:
    wrong = [key for key, name in wanted.items() if network[name].shape != found[key].shape]
    if wrong:
        first = wrong[0]
        more = f" ({len(wrong) - 1} more differ)" if len(wrong) > 1 else ""
        raise ModelFolderError(
            f"{path}: {first} should have the shape {list(network[wanted[first]].shape)} by the "
            f"{CONFIG} beside it, found {list(found[first].shape)}{more}."
        )


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
