"""What a network can predict in place of the noise, and what its error is worth.

A state is x = alpha data + sigma noise, with alpha^2 = signal(t) and sigma^2 = 1 - signal(t).
Whatever a network predicts, samplers and guidance see the noise that it implies.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from wuerstchen.diffusion.schedule import data_weight, p2_weight, signal

Prediction = Literal["noise", "v", "flow"]
"""noise; v = alpha noise - sigma data (arXiv:2202.00512, appendix D); flow = noise - data, the
velocity along a straight line (arXiv:2209.03003), at the time of that line with the same SNR."""


def noise_of(predicts: Prediction, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """The noise in states x (B, ...) at (B,) times, by a network's (B, ...) output.

    v     noise = sigma x + alpha v
    flow  noise = (x + alpha flow) / (alpha + sigma)
    """
    if predicts == "noise":
        return output
    alpha, sigma = _shares(t, x)
    if predicts == "v":
        return sigma * x + alpha * output
    return (x + alpha * output) / (alpha + sigma)


def v_weight(t: Tensor) -> Tensor:
    """What turns squared error of the noise into that of v: 1 / signal."""
    return 1 / signal(t)


def flow_weight(t: Tensor) -> Tensor:
    """What turns squared error of the noise into that of the flow: (1 + sigma / alpha)^2."""
    share = signal(t)
    return (1 + ((1 - share) / share).sqrt()).square()


def _shares(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma, shaped to multiply x."""
    share = signal(t).view(-1, *(1 for _ in x.shape[1:])).to(x)
    return share.sqrt(), (1 - share).sqrt()


LOSS_WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "p2": p2_weight,
    "data": data_weight,
    "v": v_weight,
    "flow": flow_weight,
}
"""Weights of the noise's squared error that follow from the time alone."""
