"""Laws of guidance, with networks whose output shows their input."""

import pytest
import torch
from torch import Tensor

from wuerstchen import diffusion
from wuerstchen.diffusion import Guidance
from wuerstchen.errors import ConfigError

SHAPE = (4, 3, 8, 8)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def labelled(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
    """A network whose answer shows which image, time and condition it was given."""
    return x * condition.view(-1, 1, 1, 1) + t.view(-1, 1, 1, 1)


class Counting:
    """`labelled`, which notes the rows and the times of its calls."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.times: list[float] = []

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        assert len(x) == len(t) == len(condition)
        assert len(set(t.tolist())) == 1
        self.rows.append(len(x))
        self.times.append(t[0].item())
        return labelled(x, t, condition)


@pytest.mark.parametrize("scale", [1.5, 4.0, 7.0])
def test_guidance_extrapolates_from_the_negative_to_the_positive_condition(
    scale: float, rng: torch.Generator
) -> None:
    x = torch.randn(SHAPE, generator=rng)
    positive, negative = torch.rand(2, 4, generator=rng)
    t = torch.full((4,), 0.3)
    plus, minus = labelled(x, t, positive), labelled(x, t, negative)
    both = torch.cat([positive, negative])
    found = diffusion.guided(labelled, both, positive, Guidance(scale))(x, 0.3)
    torch.testing.assert_close(found, minus + scale * (plus - minus))


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.0, -3.0])
def test_a_scale_of_one_or_less_is_the_network_without_guidance(
    scale: float, rng: torch.Generator
) -> None:
    x, positive = torch.randn(SHAPE, generator=rng), torch.rand(4, generator=rng)
    both = torch.cat([positive, torch.zeros(4)])
    network = Counting()
    found = diffusion.guided(network, both, positive, Guidance(scale))(x, 0.6)
    assert torch.equal(found, diffusion.unguided(labelled, positive)(x, 0.6))
    assert network.rows == [4]
    assert not Guidance(scale).active


def test_outside_the_interval_the_negative_half_is_not_computed(rng: torch.Generator) -> None:
    x, positive = torch.randn(SHAPE, generator=rng), torch.rand(4, generator=rng)
    both = torch.cat([positive, torch.zeros(4)])
    network = Counting()
    denoise = diffusion.guided(network, both, positive, Guidance(4.0, interval=(0.25, 0.75)))
    plain, full = (
        diffusion.unguided(labelled, positive),
        diffusion.guided(labelled, both, positive, Guidance(4.0)),
    )
    asked = [1.0, 0.76, 0.75, 0.5, 0.25, 0.24, 0.0]
    for t in asked:
        expected = full if 0.25 <= t <= 0.75 else plain
        assert torch.equal(denoise(x, t), expected(x, t))
    assert network.rows == [4, 4, 8, 8, 8, 4, 4]
    assert network.times == pytest.approx(asked)


def test_without_an_interval_every_time_is_guided() -> None:
    assert [Guidance(4.0).scale_at(t) for t in (1.0, 0.3, 0.0)] == [4.0, 4.0, 4.0]


def test_the_scale_falls_linearly_to_its_end() -> None:
    guidance = Guidance(5.0, end=2.0)
    found = [guidance.scale_at(t) for t in (1.0, 0.75, 0.5, 0.0)]
    assert found == pytest.approx([5.0, 4.25, 3.5, 2.0])


def test_a_scale_that_falls_to_one_stops_guiding_there(rng: torch.Generator) -> None:
    guidance = Guidance(3.0, end=-1.0)  # reaches 1 half way
    assert guidance.scale_at(0.75) == pytest.approx(2.0)
    assert guidance.scale_at(0.5) is None and guidance.scale_at(0.2) is None
    positive, network = torch.rand(4, generator=rng), Counting()
    denoise = diffusion.guided(network, torch.cat([positive, positive]), positive, guidance)
    for t in (0.9, 0.51, 0.5, 0.1):
        denoise(torch.zeros(SHAPE), t)
    assert network.rows == [8, 8, 4, 4]


@pytest.mark.parametrize(
    ("guidance", "active"),
    [
        (Guidance(), False),
        (Guidance(1.01), True),
        (Guidance(0.5, end=2.0), True),
        (Guidance(2.0, end=0.0), True),
        (Guidance(2.0, end=0.0, interval=(0.0, 0.5)), False),
        (Guidance(2.0, end=0.0, interval=(0.0, 0.6)), True),
        (Guidance(4.0, interval=(0.5, 0.5)), True),
    ],
)
def test_guidance_is_active_where_it_guides_any_time(guidance: Guidance, active: bool) -> None:
    assert guidance.active is active
    tried = [guidance.scale_at(k / 1000) for k in range(1001)]
    assert any(scale is not None for scale in tried) is active


def spread(noise: Tensor) -> Tensor:
    """(B,) standard deviation over all but the images."""
    return torch.stack([row.double().std(correction=0) for row in noise])


def test_rescale_one_gives_every_image_the_deviation_of_its_conditional_prediction(
    rng: torch.Generator,
) -> None:
    x = torch.randn(SHAPE, generator=rng) * torch.tensor([0.1, 1, 2, 30.0]).view(-1, 1, 1, 1)
    positive, negative = torch.rand(2, 4, generator=rng)
    both = torch.cat([positive, negative])
    plain = diffusion.guided(labelled, both, positive, Guidance(6.0))(x, 0.4)
    found = diffusion.guided(labelled, both, positive, Guidance(6.0, rescale=1.0))(x, 0.4)
    aim = spread(diffusion.unguided(labelled, positive)(x, 0.4))
    assert not torch.allclose(spread(plain), aim, rtol=0.1)
    torch.testing.assert_close(spread(found), aim, rtol=1e-5, atol=0)
    half = diffusion.guided(labelled, both, positive, Guidance(6.0, rescale=0.5))(x, 0.4)
    torch.testing.assert_close(half, (plain + found) / 2)


def test_rescale_leaves_a_constant_prediction_as_it_is() -> None:
    varied = torch.randn(2, 3, 8, 8)
    for constant in (0.0, 1.0, 1e-40):
        guided_noise = torch.full((2, 3, 8, 8), constant)
        assert torch.equal(diffusion.guidance.rescaled(guided_noise, varied, 1.0), guided_noise)


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_the_guidance_of_an_image_does_not_depend_on_its_batch(
    rescale: float, rng: torch.Generator
) -> None:
    x = torch.randn(SHAPE, generator=rng)
    positive, negative = torch.rand(2, 4, generator=rng)
    guidance = Guidance(4.0, rescale=rescale)
    together = diffusion.guided(labelled, torch.cat([positive, negative]), positive, guidance)(
        x, 0.4
    )
    for k in range(4):
        plus, minus = positive[k : k + 1], negative[k : k + 1]
        alone = diffusion.guided(labelled, torch.cat([plus, minus]), plus, guidance)
        torch.testing.assert_close(alone(x[k : k + 1], 0.4), together[k : k + 1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_guidance_keeps_the_dtype_of_the_network(dtype: torch.dtype) -> None:
    positive = torch.ones(2, dtype=dtype)
    denoise = diffusion.guided(
        labelled, torch.cat([positive, positive / 2]), positive, Guidance(4.0, rescale=0.7)
    )
    found = denoise(torch.randn(2, 3, 8, 8).to(dtype), 0.5)
    assert found.dtype == dtype and found.isfinite().all()


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Guidance(float("nan")), "scale"),
        (lambda: Guidance(4.0, end=float("inf")), "end"),
        (lambda: Guidance(4.0, interval=(0.8, 0.2)), "0.8 and 0.2"),
        (lambda: Guidance(4.0, interval=(-0.1, 0.2)), "-0.1"),
        (lambda: Guidance(4.0, interval=(0.0, float("nan"))), "nan"),
        (lambda: Guidance(4.0, rescale=1.2), "1.2"),
    ],
    ids=["scale", "end", "order", "range", "nan", "rescale"],
)
def test_impossible_guidance_is_refused_in_one_sentence(make, named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        make()
    assert "found" in str(caught.value) and "\n" not in str(caught.value)
