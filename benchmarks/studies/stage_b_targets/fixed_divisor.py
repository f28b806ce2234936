"""A Stage B with the published head whose divisor b is fixed at sigma(t).

With a = alpha data and b = sigma, the head's output (x - a) / b is the noise that a prediction of
the data implies. alpha and sigma depend on the time alone, so the weights of the last time block
and of the head can produce them, and the network needs no other code: diffusers opens it unchanged.

The last time block scales its channels by alpha(t), except the first four, which it replaces by
K sin, -K sin, K cos and -K cos of an angle that depends on t. K is so large that the norm after it
divides by almost the same number at all cells; the logits of b are then a multiple of the sine.
"""

import torch
from torch import Tensor, nn

from wuerstchen import diffusion
from wuerstchen.models.blocks import TimeBlock, time_embedding
from wuerstchen.models.stage_b import DIVISOR_MARGIN, LATENT_CHANNELS, StageB

ANGLE_CHANNELS = 4
"""Channels of the finest level that carry the angle."""

AMPLITUDE = 64.0
"""K. The energy of all other channels must be small compared with 2 K^2."""

MAX_LOGIT = 7.0
"""Largest absolute logit of b, which then stays below 0.998; its published limit is 0.999."""

FIRST_FEATURE = 14
"""The first time feature of the fit; those before it oscillate too fast for smooth curves."""

RIDGE = 1e-2


class FixedDivisor:
    """Fixes the weights that determine b; the head then learns a in units of alpha data."""

    def __init__(self, stage_b: StageB) -> None:
        last = stage_b.up_blocks[-1][-1]  # type: ignore[index]
        assert isinstance(last, TimeBlock)
        conv = stage_b.head[1]
        assert isinstance(conv, nn.Conv2d) and conv.bias is not None
        self._weight, self._bias = conv.weight, conv.bias
        width = stage_b.config.widths[0]
        self._rows_of_a = LATENT_CHANNELS * stage_b.config.patch**2
        _fix_time_block(last, width)
        learned = torch.zeros_like(conv.weight)
        learned[: self._rows_of_a, ANGLE_CHANNELS:] = 1
        conv.weight.register_hook(lambda gradient: gradient * learned)
        self._sine_weight = MAX_LOGIT / (width / 2) ** 0.5
        self.lr_factor = AMPLITUDE / (width / 2) ** 0.5
        """Learning rate of the head relative to the rest: its inputs are smaller by this factor."""
        self.restore()

    @torch.no_grad()
    def restore(self) -> None:
        """Reset the fixed weights of the head; call it after every optimizer step."""
        self._weight[:, :ANGLE_CHANNELS] = 0
        self._weight[self._rows_of_a :] = 0
        self._weight[self._rows_of_a :, 0] = self._sine_weight
        self._bias[self._rows_of_a :] = 0


def divisor_logit(sigma: Tensor) -> Tensor:
    """The logits of b for which the divisor is sigma; finite at both ends."""
    inside = (sigma - DIVISOR_MARGIN) / (1 - 2 * DIVISOR_MARGIN)
    return inside.clamp(1e-4, 1 - 1e-4).logit()


@torch.no_grad()
def _fix_time_block(block: TimeBlock, width: int) -> None:
    t = torch.linspace(0, 1, 20_001)
    a_bar = diffusion.alpha_bar(t).double()
    alpha, sigma = a_bar.sqrt(), (1 - a_bar).sqrt()
    sine = (divisor_logit(sigma) / MAX_LOGIT).clamp(-1, 1)
    cosine = (1 - sine.square()).sqrt()
    features = time_embedding(t, block.mapper.in_features).double()
    alpha_weights = _fit(features, alpha, 1 / alpha)  # small relative error
    equal = torch.ones_like(alpha)
    sine_weights, cosine_weights = _fit(features, sine, equal), _fit(features, cosine, equal)
    rows = torch.zeros(2 * width, features.shape[1] + 1, dtype=torch.float64)
    rows[ANGLE_CHANNELS:width] = alpha_weights
    rows[:width, -1] -= 1  # the block adds 1 to the scale
    curves = (sine_weights, -sine_weights, cosine_weights, -cosine_weights)
    for row, curve in enumerate(curves):
        rows[width + row] = AMPLITUDE * curve
    block.mapper.weight.copy_(rows[:, :-1])
    block.mapper.bias.copy_(rows[:, -1])
    block.requires_grad_(False)


def _fit(features: Tensor, curve: Tensor, error_weight: Tensor) -> Tensor:
    """(F + 1,) weights and bias that map the (N, F) time features to an (N,) curve.

    error_weight  (N,) factor of the error at each time
    """
    half = features.shape[1] // 2
    used = [*range(FIRST_FEATURE, half), *range(half + FIRST_FEATURE, 2 * half)]
    inputs = torch.cat([features[:, used], torch.ones(len(curve), 1, dtype=torch.float64)], dim=1)
    inputs, curve = inputs * error_weight[:, None], curve * error_weight
    gram = inputs.T @ inputs + RIDGE * torch.eye(inputs.shape[1])
    weights = torch.zeros(features.shape[1] + 1, dtype=torch.float64)
    weights[[*used, -1]] = torch.linalg.solve(gram, inputs.T @ curve)
    return weights
