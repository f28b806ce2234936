"""Images in the forms in which callers pass and receive them: Pillow images, arrays, tensors.

B images, H x W pixels.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Images = list[Image.Image] | NDArray[np.float32] | Tensor


def converted(result: Tensor, output_type: str) -> Images:
    """(B, 3, H, W) pixels in [0, 1], or latents, in the form `output_type` names."""
    if output_type in ("pt", "latent"):
        return result
    pixels: NDArray[np.float32] = result.float().cpu().permute(0, 2, 3, 1).numpy()  # (B, H, W, 3)
    if output_type == "np":
        return pixels
    return [Image.fromarray((row * 255).round().astype(np.uint8)) for row in pixels]
