"""Feature networks by name: lite0, inception=FILE, clip=PATH, siglip=PATH, dinov2=PATH.

B images, F features. A path is a local one, or a hub id, which is looked up only if it is named.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wuerstchen.digests import file_digest
from wuerstchen.errors import ConfigError
from wuerstchen.evaluation.distances.inception_weights import load_inception
from wuerstchen.evaluation.distances.pretrained import normalisation_of, open_pretrained
from wuerstchen.evaluation.lite0 import load_lite0, weights_file
from wuerstchen.models import inception, lite0
from wuerstchen.weights import find

KINDS = ("lite0", "inception", "clip", "siglip", "dinov2")

LITE0_SIDE = 224
"""Side at which the network was trained."""

PYTORCH_FID = "pt_inception-2015-12-05-6726825d.pth"


@dataclass(frozen=True)
class FeatureNetwork:
    """A network whose features are compared, on one device."""

    name: str
    weights: str
    """SHA-256 of its weights."""
    side: int
    """Of the square images that it takes, in pixels."""
    layer: str
    """Which of its features."""
    normalisation: str
    """Mean and deviation by which pixels in [0, 1] are normalised."""
    features: Callable[[Tensor], Tensor]
    """(B, 3, side, side) pixels in [0, 1] to (B, F), both on the CPU."""
    scores: Callable[[Tensor], Tensor] | None = None
    """(B, F) to the (B, 1008) class scores of the Inception Score, which other networks lack."""


def open_network(text: str, device: torch.device) -> FeatureNetwork:
    """The network that NAME or NAME=PATH stands for.

    Raises ConfigError for an unknown name and a missing path, ModelFolderError for weights that
    are damaged or of another network, WuerstchenError without the extra `judge` (lite0 alone).
    """
    name, _, path = text.partition("=")
    if name not in KINDS:
        raise ConfigError(
            f"--features: expected {', '.join(KINDS)}, found {name!r}; all but lite0 with their "
            "weights, such as clip=PATH."
        )
    if name == "lite0":
        if path:
            raise ConfigError("--features: lite0 brings its weights and takes no path; remove it.")
        return _lite0(device)
    if not path:
        raise ConfigError(
            f"--features: {name} needs weights, which are not part of this package; pass "
            f"{name}=PATH, {_what(name)}."
        )
    found = find(path)
    if name == "inception":
        return _inception(found, device)
    network = open_pretrained(name, found, device)
    return FeatureNetwork(
        name,
        network.weights,
        network.side,
        network.layer,
        network.normalisation,
        network.features,
    )


def _what(name: str) -> str:
    if name == "inception":
        return f"the file {PYTORCH_FID} of pytorch-fid"
    return "a folder with config.json and model.safetensors, or a hub id"


def _lite0(device: torch.device) -> FeatureNetwork:
    network = load_lite0().to(device)

    @torch.inference_mode()
    def features(images: Tensor) -> Tensor:
        *_, last = network(images.to(device))  # (B, F, h, w)
        means: Tensor = last.mean(dim=(2, 3))
        return means.cpu()

    digest = file_digest(weights_file())
    normalisation = normalisation_of([lite0.MEAN] * 3, [lite0.STD] * 3)
    layer = "last, mean of its cells"
    return FeatureNetwork("lite0", digest, LITE0_SIDE, layer, normalisation, features)


def _inception(path: Path, device: torch.device) -> FeatureNetwork:
    network = load_inception(path).to(device)

    @torch.inference_mode()
    def features(images: Tensor) -> Tensor:
        found: Tensor = network(images.to(device))
        return found.cpu()

    @torch.inference_mode()
    def scores(found: Tensor) -> Tensor:
        return network.scores(found.to(device)).cpu()

    digest = file_digest(path)
    normalisation = normalisation_of([0.5] * 3, [0.5] * 3)  # 2 x - 1, by the network itself
    layer = "pool3, 2048 features"
    return FeatureNetwork(
        "inception", digest, inception.SIDE, layer, normalisation, features, scores
    )
