"""Laws of Muon: its step against torch's own, which weights it gets, and that a stop is no loss."""

from pathlib import Path

import pytest
import torch
from line_stage import Line, assert_equal, loop_of, recipe, state_of
from torch import Tensor, nn

from wuerstchen.data import Pairs
from wuerstchen.errors import TrainingError
from wuerstchen.training.muon import Muon, linear_weights, orthogonalise


@pytest.mark.parametrize("shape", [(12, 12), (8, 20), (20, 8)])
def test_a_step_is_that_of_torch(shape: tuple[int, int]) -> None:
    """torch iterates in bf16, one matrix at a time."""
    generator = torch.Generator().manual_seed(1)
    start = [torch.randn(shape, generator=generator) for _ in range(3)]
    ours, theirs = ([nn.Parameter(w.clone()) for w in start] for _ in range(2))
    muon = Muon([{"params": ours}], lr=0.1, momentum=0.9, weight_decay=0.03)
    oracle = torch.optim.Muon(
        theirs, lr=0.1, momentum=0.9, weight_decay=0.03, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(shape, generator=generator)
            other.grad = one.grad.clone()
        muon.step()
        oracle.step()
    for begin, one, other in zip(start, ours, theirs, strict=True):
        assert (one - other).norm() < 0.02 * (one - begin).norm()


def test_orthogonal_steps_keep_directions_and_level_their_lengths() -> None:
    generator = torch.Generator().manual_seed(1)
    matrices = torch.randn(3, 12, 20, generator=generator)
    for matrix, made in zip(matrices, orthogonalise(matrices), strict=True):
        lengths = torch.linalg.svdvals(made)
        assert lengths.min() > 0.6 and lengths.max() < 1.3
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        inner = u.T @ made @ v.T  # diagonal where the directions are kept
        assert (inner - inner.diagonal().diag()).abs().max() < 1e-3
    tall = orthogonalise(matrices.mT.contiguous())
    torch.testing.assert_close(tall.mT, orthogonalise(matrices), atol=1e-4, rtol=1e-4)


def test_steps_of_steep_matrices_have_even_singular_values() -> None:
    generator = torch.Generator().manual_seed(0)
    scales = torch.diag(torch.tensor([100.0, 10.0, 1.0]))
    steep = scales @ torch.randn(3, 8, generator=generator)
    values = torch.linalg.svdvals(orthogonalise(steep[None])[0])
    assert values.min() > 0.5 and values.max() < 1.3


def test_only_trained_matrices_of_linear_layers_are_for_muon() -> None:
    frozen = nn.Linear(3, 4).requires_grad_(False)
    chosen = nn.Linear(4, 5)
    others = (nn.Linear(5, 1), nn.Conv2d(3, 4, kernel_size=1), nn.Embedding(3, 4), nn.LayerNorm(4))
    found = linear_weights(nn.Sequential(frozen, chosen, *others))
    assert [id(weight) for weight in found] == [id(chosen.weight)]


class WideLine(Line):
    """With a matrix, which a line of width 1 lacks."""

    def __init__(self, **changes: object) -> None:
        super().__init__(recipe(optimizer="muon", **changes), width=4)


def test_a_run_that_stops_ends_as_one_that_does_not(
    splits: tuple[Pairs, Pairs], tmp_path: Path
) -> None:
    whole = loop_of(WideLine(), splits, tmp_path / "whole")
    whole.run()
    first = WideLine(checkpoint_every=28)

    def stop(step: int, value: Tensor) -> Tensor:
        return value * (torch.nan if step == 11 else 1)

    first.disturb = stop
    with pytest.raises(TrainingError):
        loop_of(first, splits, tmp_path / "run").run()
    resumed = loop_of(WideLine(), splits, tmp_path / "run")
    assert 0 < resumed.state.images < 44
    resumed.run()
    assert_equal(state_of(resumed), state_of(whole))


def test_micro_batches_do_not_change_it(splits: tuple[Pairs, Pairs], tmp_path: Path) -> None:
    states = []
    for parts in (1, 2):
        loop = loop_of(WideLine(gradient_accumulation=parts), splits, tmp_path / str(parts))
        loop.run()
        states.append(state_of(loop))
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, atol=1e-4, rtol=1e-4)


def test_its_rate_scales_the_steps_of_matrices_alone(
    splits: tuple[Pairs, Pairs], tmp_path: Path
) -> None:
    def after_a_step(rate: float) -> dict[str, Tensor]:
        stage = WideLine(images=4, muon_rate=rate, weight_decay=0.0, warmup_steps=1)
        before = {key: value.clone() for key, value in stage.line.state_dict().items()}
        loop_of(stage, splits, tmp_path / str(rate)).run()
        return {key: value - before[key] for key, value in stage.line.state_dict().items()}

    one, five = after_a_step(1.0), after_a_step(5.0)
    torch.testing.assert_close(five["0.weight"], 5 * one["0.weight"], atol=1e-6, rtol=1e-4)
    for key in one.keys() - {"0.weight"}:
        torch.testing.assert_close(five[key], one[key], atol=0, rtol=0)


@pytest.mark.parametrize(("before", "after"), [("adamw", "muon"), ("muon", "adamw")])
def test_a_checkpoint_of_the_other_optimizer_is_refused(
    splits: tuple[Pairs, Pairs], tmp_path: Path, before: str, after: str
) -> None:
    loop_of(Line(recipe(optimizer=before), width=4), splits, tmp_path).run()
    with pytest.raises(TrainingError, match=r"does not fit .* restore the config"):
        loop_of(Line(recipe(optimizer=after), width=4), splits, tmp_path)


def test_sharded_matrices_are_refused() -> None:
    with pytest.raises(ValueError, match="optimizer is muon, which needs whole matrices, but shar"):
        recipe(optimizer="muon", sharded=True)
