"""The measurements of an accelerator, run where every machine can: tiny networks on the CPU."""

from pathlib import Path

import pytest
import torch

from benchmarks.accelerator import compiled_twins, four_pipelines, measure_images
from benchmarks.jobs import Job
from benchmarks.networks import STAGES, TINY, single
from benchmarks.records import Store, Times
from benchmarks.stages import Place, measure_calls
from benchmarks.whole import SHORT

pytestmark = [
    pytest.mark.slow,
    # The compiler's own, about what it could do with other settings.
    pytest.mark.filterwarnings("ignore:::torch"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
HERE = Place(repeats=2, compiled=True)


def job_in(folder: Path, *, resume: bool = False) -> Job:
    store = Store(folder / "accelerator.json", TINY.name)
    return Job(store=store, sizes=TINY, sides=(128,), repeats=1, resume=resume, batches=(1,))


def keys(job: Job) -> set[tuple[str, str, str, int]]:
    found = [each for each in job.store.results.records if isinstance(each, Times)]
    return {(each.system, each.mode, each.call, each.rows) for each in found}


def test_both_systems_generate_the_same_image_eager_and_compiled(tmp_path: Path) -> None:
    torch._dynamo.reset()
    pipelines = four_pipelines(job_in(tmp_path), HERE)
    found = {key: generate(SHORT, 128, "latent") for key, generate in pipelines.items()}
    assert len(found) == 4
    for key, latents in found.items():
        torch.testing.assert_close(
            latents, found["diffusers", "eager"], atol=1e-4, rtol=0, msg=str(key)
        )


def test_a_compiled_twin_shares_its_weights_and_leaves_the_network_as_it_is() -> None:
    networks = {part: single("diffusers", part, TINY) for part in STAGES}
    twins = compiled_twins(networks)
    for part, network in networks.items():
        assert all(
            a is b for a, b in zip(network.parameters(), twins[part].parameters(), strict=True)
        )
        assert network._compiled_call_impl is None
    assert twins["stage_c"]._compiled_call_impl is not None


def test_calls_are_measured_in_four_ways_and_not_again_on_resuming(tmp_path: Path) -> None:
    torch._dynamo.reset()
    measure_calls(job_in(tmp_path), "stage_c", HERE, (1,))
    job = job_in(tmp_path, resume=True)
    assert {(system, mode) for system, mode, call, rows in keys(job) if call == "step"} == {
        (system, mode) for system in ("ours", "diffusers") for mode in ("eager", "compiled")
    }
    assert {rows for *_, rows in keys(job)} == {1, 2}
    before = list(job.store.results.records)
    measure_calls(job, "stage_c", HERE, (1,))
    assert job.store.results.records == before


def test_whole_images_are_measured_in_four_ways(tmp_path: Path) -> None:
    torch._dynamo.reset()
    job = job_in(tmp_path)
    measure_images(job, HERE)
    assert keys(job) == {
        (system, mode, call, 1)
        for system in ("ours", "diffusers")
        for mode in ("eager", "compiled")
        for call in ("60 + 12", "defaults")
    }
