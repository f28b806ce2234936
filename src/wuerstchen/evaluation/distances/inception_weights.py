"""Weights of the Inception network of FID, from pytorch-fid's file or a safetensors file."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wuerstchen.errors import ModelFolderError
from wuerstchen.models.inception import Inception2015
from wuerstchen.weights.torch_files import read_torch

COUNTER = "num_batches_tracked"
"""Some files lack these counters of training, which change nothing."""

LEAST_BYTES = 4 * 23_000_000
"""Of a file of 23.9 million fp32 weights; a smaller one is cut off, or of something else."""


def load_inception(path: Path) -> Inception2015:
    """The network in evaluation mode, with the weights of a .pth or .safetensors file.

    Raises ModelFolderError for a file that is damaged or of another network.
    """
    with torch.device("meta"):
        network = Inception2015()
    stored = _read(path)
    problem = _misfit(network.state_dict(), stored)
    if problem:
        raise ModelFolderError(
            f"{path} does not contain the Inception network of FID with pytorch-fid's key names: "
            f"{problem}; name a file such as pt_inception-2015-12-05-6726825d.pth."
        )
    counters = {
        name: torch.zeros((), dtype=torch.long)
        for name in network.state_dict()
        if name.endswith(COUNTER)
    }
    weights = {name: tensor.float() for name, tensor in stored.items() if COUNTER not in name}
    network.load_state_dict(counters | weights, assign=True)
    return network.requires_grad_(False).eval()


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ModelFolderError(
            f"{path}: expected a file of weights of the Inception network of FID, found a folder; "
            "name the file."
        )
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise ModelFolderError(
                f"{path} is damaged or cut off and cannot be read as safetensors ({error}); copy "
                "it again."
            ) from None
    return read_torch(path, "cpu")[0] if zipfile.is_zipfile(path) else _read_early(path)


def _read_early(path: Path) -> dict[str, Tensor]:
    """A file of torch before 1.6, as pytorch-fid's is: read without running code."""
    size = path.stat().st_size
    if size < LEAST_BYTES:  # before anything that it states is believed
        raise ModelFolderError(
            f"{path}: expected at least {LEAST_BYTES:,} bytes of weights of the Inception network "
            f"of FID, found {size:,}; the file is cut off, or another one."
        )
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ModelFolderError(
            f"{path} has Python objects next to its weights, which are never opened, since they "
            "can run code; use a safetensors file of these weights."
        ) from None
    except Exception as error:  # a damaged file can raise anything
        reason = str(error).strip().split("\n")[0]
        raise ModelFolderError(
            f"{path} is damaged or cut off and cannot be read as a file of torch ({reason}); copy "
            "it again."
        ) from None
    if not isinstance(found, Mapping):
        raise ModelFolderError(f"{path}: expected weights by name, found {type(found).__name__}.")
    return {str(name): each for name, each in found.items() if isinstance(each, Tensor)}


def _misfit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """The first difference that prevents loading, or nothing."""
    wanted = {name: tensor for name, tensor in expected.items() if not name.endswith(COUNTER)}
    others = sorted(name for name in found if name not in expected)
    for name, tensor in wanted.items():
        if name not in found:
            instead = f"found {others[0]}" if others else "found nothing in its place"
            return f"expected {name}, {instead}"
        if found[name].shape != tensor.shape:
            return f"expected {name} of {list(tensor.shape)}, found {list(found[name].shape)}"
    return f"{others[0]} is unexpected" if others else ""
