"""Adaptive weights make noise levels equal, and neither parts nor restarts change them."""

import pytest
import torch

from wuerstchen import diffusion
from wuerstchen.training.loss_weighting import AdaptiveWeight, held_out_errors, weighting


def errors_at(t: torch.Tensor) -> torch.Tensor:
    """Losses that fall steeply with the noise, as those of a trained network do."""
    return 2 * (1 - t) ** 3 + 0.01


def test_each_level_comes_to_weigh_the_same() -> None:
    weight, stream = AdaptiveWeight(), torch.Generator().manual_seed(0)
    for _ in range(3000):
        t = diffusion.training_times(torch.rand(64, generator=stream))
        weight(t, errors_at(t))
        weight.after_step()
    t = torch.linspace(0.1, 0.95, 12)
    weighted = weight(t, errors_at(t)) * errors_at(t)
    assert errors_at(t).max() / errors_at(t).min() > 50
    assert float(weighted.min()) > 0.8 and float(weighted.max()) < 1.25


def test_parts_of_a_batch_are_one_batch() -> None:
    whole, parts = AdaptiveWeight(), AdaptiveWeight()
    t = torch.rand(16, generator=torch.Generator().manual_seed(1))
    expected = whole(t, errors_at(t))
    found = torch.cat([parts(part, errors_at(part)) for part in t.split(4)])
    whole.after_step()
    parts.after_step()
    assert torch.equal(found, expected) and torch.equal(whole.means, parts.means)
    assert not torch.equal(whole.means, torch.ones_like(whole.means))


def test_a_step_that_memory_ended_does_not_count() -> None:
    once, again = AdaptiveWeight(), AdaptiveWeight()
    t = torch.rand(16, generator=torch.Generator().manual_seed(1))
    again(t[:8], errors_at(t[:8]))  # then memory ended, and the step begins anew
    for weight in (once, again):
        weight.before_step()
        weight(t, errors_at(t))
        weight.after_step()
    assert torch.equal(once.means, again.means) and torch.equal(once.counts, again.counts)


def test_what_is_remembered_is_what_it_goes_on_with() -> None:
    weight = weighting("adaptive")
    kept = weight.state()["weight.means"]
    weight(torch.tensor([0.5, 0.5]), torch.tensor([4.0, 4.0]))
    assert weight.after_step()["weight_spread"] > 1
    assert kept.max() > 1, "the tensor itself, for a checkpoint to fill"
    assert weighting("p2").state() == {}


def test_held_out_losses_are_told_by_noise_level() -> None:
    t = (torch.arange(8) + 0.5) / 8
    found = held_out_errors(weighting("p2"), t, t)
    assert [found[f"held_out_{at}"] for at in (0, 25, 50, 75)] == [0.125, 0.375, 0.625, 0.875]
    assert found["held_out"] == pytest.approx(float((diffusion.p2_weight(t) * t).mean()))
    assert held_out_errors(AdaptiveWeight(), t, t) == found, "a fixed measure, whatever was learned"
