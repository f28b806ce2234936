"""Laws of what is measured: order, equal weights, operations, published sizes, memory."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.flops import count
from benchmarks.jobs import any_call, build, parts_of, rows_of
from benchmarks.networks import PUBLISHED, STAGES, TINY, network_call, pair
from benchmarks.schedules import SIXTY, Schedule, evaluations, network_calls
from benchmarks.timing import alternate, ratios
from wuerstchen.diffusion import Guidance
from wuerstchen.inference.sampling import SamplingPlan

ROOT = Path(__file__).parents[2]


@cache
def published(system: str, part: str) -> nn.Module:
    """A network of the published size, on the meta device."""
    return build(system, part, PUBLISHED, filled=False)


def operations(system: str, part: str, side: int) -> int:
    with torch.no_grad():
        call = any_call(system, part, published(system, part), PUBLISHED, side, rows_of(part)[0])
    return count(call.step)


def test_runs_alternate_and_the_first_of_each_is_not_counted() -> None:
    order: list[str] = []
    seconds = alternate(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")},
        repeats=3,
        clock=lambda work: (work(), float(len(order)))[1],
    )
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert seconds == {"a": [3.0, 6.0, 7.0], "b": [4.0, 5.0, 8.0]}


def test_a_ratio_compares_what_met_in_one_turn() -> None:
    assert ratios([1.0, 4.0], [2.0, 16.0]) == [0.5, 0.25]


@pytest.mark.parametrize("part", STAGES)
@torch.inference_mode()
def test_both_systems_compute_the_same_from_the_same_weights(part: str) -> None:
    networks = pair(part, TINY)
    found = {
        system: network_call(system, part, network, TINY, 128, 2).step()
        for system, network in networks.items()
    }
    assert found["diffusers"].std() > 1e-2, "an empty output proves nothing"
    torch.testing.assert_close(found["ours"], found["diffusers"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("system", "part", "parameters"),
    [
        ("ours", "stage_a", 18_406_894),
        ("ours", "stage_b", 1_055_365_280),
        ("ours", "stage_c", 993_636_896),
        ("sd21", "unet", 865_910_724),
        ("sdxl", "unet", 2_567_463_684),
        ("sd21", "vae", 83_653_863),
    ],
)
def test_networks_have_the_published_numbers_of_parameters(
    system: str, part: str, parameters: int
) -> None:
    found = sum(parameter.numel() for parameter in published(system, part).parameters())
    assert found == parameters


def test_operations_are_two_for_each_multiplication_and_addition() -> None:
    a, b = torch.empty(3, 5, device="meta"), torch.empty(5, 7, device="meta")
    assert count(lambda: a @ b) == 2 * 3 * 5 * 7
    image, kernel = torch.empty(1, 2, 8, 8, device="meta"), torch.empty(4, 2, 3, 3, device="meta")
    assert count(lambda: F.conv2d(image, kernel, padding=1)) == 2 * 64 * 4 * 2 * 9


def test_operations_of_attention_are_seen_on_the_meta_device() -> None:
    q, k = (torch.empty(2, 4, length, 8, device="meta") for length in (6, 9))
    both_products = 2 * (2 * 2 * 4 * 6 * 9 * 8)
    assert count(lambda: F.scaled_dot_product_attention(q, k, k)) == both_products


@pytest.mark.parametrize(
    ("system", "part", "side", "expected"),
    [
        ("diffusers", "stage_c", 1024, 2.31),
        ("diffusers", "stage_b", 1024, 2.86),
        ("diffusers", "stage_a", 1024, 2.2),
        ("sd21", "unet", 1024, 9.35),
        ("sdxl", "unet", 1024, 13.5),
        ("sdxl", "vae", 1024, 10.5),
    ],
)
def test_operations_at_1024_are_those_that_others_counted(
    system: str, part: str, side: int, expected: float
) -> None:
    """An earlier, independent count of this project, in TFLOP."""
    assert operations(system, part, side) / 1e12 == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("part", STAGES)
def test_ours_never_needs_more_operations_than_diffusers(part: str) -> None:
    ours, theirs = (operations(system, part, 512) for system in ("ours", "diffusers"))
    assert 0.7 * theirs < ours <= theirs  # far less: the counter does not know an operation


def test_an_image_is_its_steps_its_decoding_and_what_is_done_once() -> None:
    schedule = Schedule("10 + 4", 7, 3, 4)
    assert {
        (p.times, p.part, p.call, p.rows) for p in network_calls("ours", schedule, batch=2)
    } == {
        (7, "stage_c", "step", 4),
        (3, "stage_c", "step", 2),
        (4, "stage_b", "step", 2),
        (1, "stage_a", "step", 2),
        (1, "stage_c", "prepare", 4),
        (1, "stage_b", "prepare", 2),
    }
    assert {calls.call for calls in network_calls("diffusers", SIXTY)} == {"step"}
    assert {calls.part for calls in network_calls("sdxl", SIXTY)} == set(parts_of("sdxl"))


@pytest.mark.parametrize(
    ("sampler", "interval", "expected"),
    [
        ("ddpm", (0.0, 1.0), (4, 0)),
        ("ddpm", (0.4, 1.0), (3, 1)),  # times 1, 0.75 and 0.5 are guided, 0.25 is not
        ("heun", (0.0, 1.0), (7, 0)),  # twice a step, and once in the last one
    ],
)
def test_evaluations_are_counted_with_and_without_guidance(
    sampler: str, interval: tuple[float, float], expected: tuple[int, int]
) -> None:
    times = [1.0, 0.75, 0.5, 0.25, 0.0]
    walk = SamplingPlan(
        times=times, sampler=sampler, guidance=Guidance(scale=4.0, interval=interval)
    )
    assert evaluations(walk) == expected


def test_the_peak_of_a_process_excludes_that_of_its_parent() -> None:
    """Linux inherits it in `ru_maxrss`: figures would grow with what ran before."""
    child = "import benchmarks.process as p; print(p.resident_peak())"
    parent = (
        "import subprocess, sys; held = bytearray(b'x') * 500_000_000;"
        f"subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", parent], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert 5_000_000 < int(done.stdout) < 250_000_000
