"""Whatever a network predicts, the noise that it implies is the noise that was added."""

import pytest
import torch

from wuerstchen import diffusion
from wuerstchen.config import Prediction

T = torch.tensor([0.05, 0.3, 0.6, 0.9, 1.0])
DATA, NOISE = torch.randn(2, 5, 4, 3, 2, generator=torch.Generator().manual_seed(1))


def truth(predicts: Prediction, data: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """By the definitions, in the terms of who published them."""
    alpha = diffusion.alpha_bar(T).sqrt().view(-1, 1, 1, 1)
    sigma = (1 - diffusion.alpha_bar(T)).sqrt().view(-1, 1, 1, 1)
    answers = {
        "noise": noise,
        "v": alpha * noise - sigma * data,
        "flow": noise - data,
        "data": data,
    }
    return answers[predicts]


@pytest.mark.parametrize("predicts", ["noise", "v", "flow", "data"])
def test_the_true_prediction_implies_the_true_noise(predicts: Prediction) -> None:
    x = diffusion.add_noise(DATA, NOISE, T)
    found = diffusion.noise_of(predicts, truth(predicts, DATA, NOISE), x, T)
    torch.testing.assert_close(found, NOISE, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("predicts", "weighting"), [("v", "v"), ("flow", "flow"), ("data", "data_uncapped")]
)
def test_the_weight_makes_the_error_that_of_the_prediction(
    predicts: Prediction, weighting: str
) -> None:
    x = diffusion.add_noise(DATA, NOISE, T)
    guess = truth(predicts, DATA, NOISE) + 0.1 * DATA.flip(0)
    noise = diffusion.noise_of(predicts, guess, x, T)
    weight = diffusion.LOSS_WEIGHTS[weighting](T)
    found = weight * (noise - NOISE).square().mean(dim=(1, 2, 3))
    expected = (0.1 * DATA.flip(0)).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
