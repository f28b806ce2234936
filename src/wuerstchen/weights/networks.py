"""Saving and loading the four networks of ours.

Saving raises SaveError and leaves what was there; `dtype` may be bf16 or fp16 to halve the file.
Loading gives fp32 on the CPU in eval mode, independent of the files, and raises ModelFolderError.
"""

from pathlib import Path

import torch
from torch import nn

from wuerstchen.config import Section
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.stage_a import StageA
from wuerstchen.models.stage_b import StageB
from wuerstchen.models.stage_c import StageC
from wuerstchen.weights import names as tables
from wuerstchen.weights.components import (
    copied,
    outline_compressor,
    outline_stage_a,
    outline_stage_b,
    outline_stage_c,
)
from wuerstchen.weights.files import replacing, write_json, write_tensors
from wuerstchen.weights.layout import CONFIG, PLACES, Part, need_part
from wuerstchen.weights.names import Names, published_config, published_key
from wuerstchen.weights.parts import PartFiles, folder_part


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
    part = _part(folder, "stage_a")
    return copied(outline_stage_a(part), part)


def load_stage_b(folder: Path) -> StageB:
    """Read `folder`/decoder."""
    part = _part(folder, "stage_b")
    return copied(outline_stage_b(part), part)


def load_stage_c(folder: Path) -> StageC:
    """Read `folder`/prior_prior."""
    part = _part(folder, "stage_c")
    return copied(outline_stage_c(part), part)


def load_compressor(folder: Path) -> Compressor:
    """Read `folder`/compressor."""
    part = _part(folder, "compressor")
    return copied(outline_compressor(part), part)


def _part(folder: Path, part: Part) -> PartFiles:
    return folder_part(need_part(folder, part), part)


def _save(
    folder: Path, part: Part, network: nn.Module, config: Section, names: Names, dtype: torch.dtype
) -> None:
    place = PLACES[part]
    tensors = {published_key(name, names): value for name, value in network.state_dict().items()}
    with replacing(folder / place.folder) as (aside,):
        write_json(aside / CONFIG, published_config(config, names))
        write_tensors(aside / place.weights, tensors, dtype)
