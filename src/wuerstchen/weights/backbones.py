"""Load pretrained feature extractors, by torchvision's key names, into two of our networks."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from wuerstchen.errors import ConfigError
from wuerstchen.models.compressor import Compressor

PREFIXES = ("features.", "backbone.")
"""The prefix of the convolutions in torchvision's files, and in the published compressor's."""


def load_backbone(compressor: Compressor, path: Path) -> None:
    """Load EfficientNetV2-S features into the backbone; ConfigError as in `load_features`."""
    key = "stage_b.training.compressor_weights"
    load_features(compressor.backbone, path, "EfficientNetV2-S", key)


def load_features(network: nn.Module, path: Path, title: str, key: str) -> None:
    """Load the `features.*` or `backbone.*` tensors of a safetensors file into `network`.

    title  the network that the file should contain, for errors
    key    the config key that names the file, for errors

    Raises ConfigError for a file that cannot be read or is of another network.
    """
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{key}: expected a safetensors file of {title}, found {str(path)!r}, which cannot be "
            f"read ({error}); name another file, or change the config so that none is needed."
        ) from None
    found = {
        name.removeprefix(prefix): tensor
        for prefix in PREFIXES
        for name, tensor in stored.items()
        if name.startswith(prefix)
    }
    problem = _misfit(network.state_dict(), found)
    if problem:
        raise ConfigError(
            f"{key}: {path} does not contain the {title} of this config: {problem}; name a file "
            "with torchvision's key names (features.…), or change the config so that none is "
            "needed."
        )
    network.load_state_dict(found)


def _misfit(expected: dict[str, Tensor], found: dict[str, Tensor]) -> str:
    """The first difference that prevents loading, or nothing."""
    for name, tensor in expected.items():
        if name not in found:
            return f"features.{name} is missing"
        if found[name].shape != tensor.shape:
            shapes = f"expected {list(tensor.shape)}, found {list(found[name].shape)}"
            return f"features.{name} has another shape ({shapes})"
    unknown = sorted(found.keys() - expected.keys())
    return f"features.{unknown[0]} is unexpected" if unknown else ""
