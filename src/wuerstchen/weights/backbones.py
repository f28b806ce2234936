"""Features that others trained, by torchvision's key names: where two of our networks begin."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from wuerstchen.errors import ConfigError
from wuerstchen.models.compressor import Compressor

PREFIXES = ("features.", "backbone.")
"""torchvision's name for the convolutions, and that of the published compressor."""


def load_backbone(compressor: Compressor, path: Path) -> None:
    """Fill the backbone from EfficientNetV2-S features; ConfigError as in `load_features`."""
    key = "stage_b.training.compressor_weights"
    load_features(compressor.backbone, path, "EfficientNetV2-S", key)


def load_features(network: nn.Module, path: Path, title: str, key: str) -> None:
    """Fill `network` from the `features.*` or `backbone.*` tensors of a safetensors file.

    title  what the file should hold, and
    key    the config key that names it, both for errors

    Raises ConfigError for a file that cannot be read or is of another network.
    """
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{key}: expected a safetensors file of {title}, found {str(path)!r}, which cannot be "
            f"read ({error}); name another file, or set the config so that none is needed."
        ) from None
    found = {
        name.removeprefix(prefix): tensor
        for prefix in PREFIXES
        for name, tensor in stored.items()
        if name.startswith(prefix)
    }
    trouble = _misfit(network.state_dict(), found)
    if trouble:
        raise ConfigError(
            f"{key}: {path} does not hold the {title} that this config makes: {trouble}; name a "
            "file with torchvision's key names (features.…), or set the config so that none is "
            "needed."
        )
    network.load_state_dict(found)


def _misfit(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> str:
    """The first thing that keeps `found` from filling a network, or nothing."""
    for name, tensor in wanted.items():
        if name not in found:
            return f"features.{name} is missing"
        if found[name].shape != tensor.shape:
            shapes = f"expected {list(tensor.shape)}, found {list(found[name].shape)}"
            return f"features.{name} has another shape ({shapes})"
    unknown = sorted(found.keys() - wanted.keys())
    return f"features.{unknown[0]} is not a part of it" if unknown else ""
