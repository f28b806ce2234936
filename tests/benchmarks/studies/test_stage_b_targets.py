"""Laws of the study of Stage B's training objectives."""

import json
from pathlib import Path

import pytest
import torch
from made_data import png, write
from PIL import Image

from benchmarks.studies.stage_b_targets import __main__ as command
from benchmarks.studies.stage_b_targets.encoded import EncodedSplit
from benchmarks.studies.stage_b_targets.network import Network, StudyConfig
from benchmarks.studies.stage_b_targets.objective import (
    WEIGHTS,
    Head,
    Objective,
    alpha_sigma,
    data_of,
    loss_of,
    noise_of,
    time_of_ratio,
    training_times,
)
from benchmarks.studies.stage_b_targets.train import sample, train
from wuerstchen import diffusion

FIXED = Objective("fixed", "plain", "published")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def head_weight(network: Network) -> torch.Tensor:
    weight = network.stage_b.head.get_parameter("1.weight")
    return weight.detach()


def test_times_of_ratios_invert_the_schedule() -> None:
    t = torch.linspace(0.02, 0.98, 50)
    alpha, sigma = (factor.flatten() for factor in alpha_sigma(t))
    assert torch.allclose(time_of_ratio(sigma / alpha), t, atol=1e-4)


@pytest.mark.parametrize(("weight", "loss"), [("p2", "p2"), ("capped", "data"), ("v", "v")])
def test_weights_of_the_data_are_those_of_the_noise_in_other_units(weight: str, loss: str) -> None:
    t = torch.linspace(0.05, 0.95, 30)
    a_bar = diffusion.alpha_bar(t)
    expected = diffusion.LOSS_WEIGHTS[loss](t) * a_bar / (1 - a_bar)
    assert torch.allclose(WEIGHTS[weight](a_bar), expected, rtol=1e-4)


@pytest.mark.parametrize("head", ["data", "v"])
def test_a_perfect_prediction_has_no_loss_and_implies_the_noise(head: Head) -> None:
    data, noise = normal(5, 4, 8, 8), normal(5, 4, 8, 8, seed=1)
    t = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    x = diffusion.add_noise(data, noise, t)
    alpha, sigma = alpha_sigma(t)
    a = data if head == "data" else alpha * noise - sigma * data
    objective = Objective(head, "plain", "published")
    output = torch.cat([a, torch.zeros_like(a)], dim=1)
    assert loss_of(objective, output, x, t, data) < 1e-9
    assert torch.allclose(noise_of(objective, output, x, t), noise, atol=1e-4)


def test_with_a_fixed_divisor_the_noise_of_the_head_implies_its_data() -> None:
    network = Network(StudyConfig(), 16, fixed_divisor=True).eval()
    assert network.fixed_divisor is not None
    head_weight(network).normal_(generator=torch.Generator().manual_seed(2))
    network.fixed_divisor.restore()
    t = torch.linspace(0.05, 0.97, 12)
    x, semantics = normal(12, 4, 32, 32), 42 * normal(12, 16, 3, 3) - 1
    alpha, sigma = alpha_sigma(t)
    with torch.no_grad():
        output = network(x, t, semantics)
        implied = (x - sigma * noise_of(FIXED, output, x, t)) / alpha
        data = data_of(FIXED, output, x, t)
    error = (implied - data).square().mean(dim=(1, 2, 3)).sqrt()
    assert data.std() > 0.1
    assert (error < 0.06).all()


def test_training_does_not_change_a_fixed_divisor() -> None:
    config = StudyConfig(images=48, batch=16, muon=True, muon_rate=8)
    network = Network(config, 16, fixed_divisor=True)
    before = head_weight(network)[16:].clone()
    images = torch.zeros(20, 3, 64, 64, dtype=torch.uint8)
    data = EncodedSplit(images, normal(20, 4, 16, 16), 42 * normal(20, 16, 2, 2) - 1)
    losses = list(train(network, FIXED, config, data, data.latents))
    after = head_weight(network)
    assert len(losses) == 3 and torch.isfinite(torch.tensor(losses)).all()
    assert torch.equal(after[16:], before)
    assert after[:16, 4:].abs().sum() > 0
    latents = sample(network, FIXED, data.semantics[:2], 16, "ddpm", "time", 2)
    assert latents.shape == (2, 4, 16, 16) and latents.isfinite().all()


def test_shifted_times_have_more_noise() -> None:
    uniform, gaussian, other = torch.rand(3, 4000, generator=torch.Generator().manual_seed(0))
    mean = {
        times: training_times(Objective("data", "plain", times), uniform, gaussian, other).mean()
        for times in ("shift:0.5", "published", "shift:2")
    }
    assert mean["shift:0.5"] < mean["published"] < mean["shift:2"]


def test_the_command_writes_scores_weights_and_a_grid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: dict[str, bytes | str] = {}
    for split, count in {"train": 3, "test": 2}.items():
        for index in range(count):
            files[f"{split}/{index}.png"] = png((80 * index, 90, 30), side=128)
            files[f"{split}/{index}.txt"] = "a colour"
    write(tmp_path / "data", files)
    out = tmp_path / "out"
    arguments = f"--name x --data {tmp_path / 'data'} --out {out} --images 4 --batch 2 --whiten"
    objective = "--head data --weight plain --times shift:2"
    monkeypatch.setattr("sys.argv", ["command", *arguments.split(), *objective.split()])
    monkeypatch.setattr(command, "SAMPLERS", {"2": ("ddpm", "time", 2)})
    command.main()
    record = json.loads((out / "x.json").read_text())
    assert record["objective"]["head"] == "data" and record["config"]["whiten"]
    assert set(record["scores"]) == {"stage a", "2"}
    with Image.open(out / "x.png") as grid:
        assert grid.size == (2 * 128, 3 * 128)
    assert (out / "x.safetensors").exists()
