"""Prediction targets other than the noise, and the loss weights that go with them.

A state is x = alpha data + sigma noise, with alpha^2 = alpha_bar(t) and sigma^2 = 1 - alpha_bar(t).
Whatever a network predicts, samplers and guidance receive the noise that it implies.
noise; v = alpha noise - sigma data (arXiv:2202.00512, appendix D); flow = noise - data, the
velocity along a straight line (arXiv:2209.03003), at the time of that line with the same SNR.
"""

from collections.abc import Callable

from torch import Tensor

from wuerstchen.config import Prediction
from wuerstchen.diffusion.schedule import alpha_bar, data_weight, p2_weight


def noise_of(predicts: Prediction, output: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """The noise in (B, ...) states x at (B,) times, from a network's (B, ...) output.

    v     noise = sigma x + alpha v
    flow  noise = (x + alpha flow) / (alpha + sigma)
    data  noise = (x - alpha data) / sigma
    """
    if predicts == "noise":
        return output
    a_bar = alpha_bar(t).view(-1, *(1 for _ in x.shape[1:])).to(x)
    alpha, sigma = a_bar.sqrt(), (1 - a_bar).sqrt()
    if predicts == "v":
        return sigma * x + alpha * output
    if predicts == "data":
        return (x - alpha * output) / sigma
    return (x + alpha * output) / (alpha + sigma)


def data_error_weight(t: Tensor) -> Tensor:
    """Turns squared error of the noise into that of the data: 1 / alpha_bar - 1."""
    return 1 / alpha_bar(t) - 1


def v_weight(t: Tensor) -> Tensor:
    """Turns squared error of the noise into that of v: 1 / alpha_bar."""
    return 1 / alpha_bar(t)


def flow_weight(t: Tensor) -> Tensor:
    """Turns squared error of the noise into that of the flow: (1 + sigma / alpha)^2."""
    a_bar = alpha_bar(t)
    return (1 + ((1 - a_bar) / a_bar).sqrt()).square()


LOSS_WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "p2": p2_weight,
    "data": data_weight,
    "data_uncapped": data_error_weight,
    "v": v_weight,
    "flow": flow_weight,
}
"""Weights of the noise's squared error that depend on the time alone."""
