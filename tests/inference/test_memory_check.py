"""Sizes that cannot fit are refused before any work; what fits is never refused."""

from pathlib import Path

import pytest
import torch
from generated import PROMPT, pixels

from wuerstchen.errors import WuerstchenError
from wuerstchen.geometry import latent_size, semantics_size
from wuerstchen.hardware import GIB, available_memory
from wuerstchen.inference import memory_check
from wuerstchen.inference.generation_plan import plan_generation
from wuerstchen.inference.memory_check import check_memory, needed_memory
from wuerstchen.inference.pipeline import Pipeline
from wuerstchen.inference.settings import StageSettings
from wuerstchen.planning.trace import Trace

CPU = torch.device("cpu")


def machine(root: Path, files: dict[str, str]) -> Path:
    """The files in which Linux shows memory."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = "MemTotal: 99 kB\nMemAvailable:    8388608 kB\nSwapFree:        1048576 kB\n"
GROUP_2 = {
    "proc/self/cgroup": "0::/job/step\n",
    "sys/fs/cgroup/job/memory.max": f"{4 * GIB}\n",
    "sys/fs/cgroup/job/memory.current": f"{3 * GIB}\n",
    "sys/fs/cgroup/job/memory.stat": f"anon 1\nactive_file {GIB}\ninactive_file {GIB}\n",
    "sys/fs/cgroup/job/step/memory.max": "max\n",
    "sys/fs/cgroup/job/step/memory.current": "5\n",
}
GROUP_1 = {
    "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/job\n",
    "sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{4 * GIB}\n",
    "sys/fs/cgroup/memory/job/memory.usage_in_bytes": f"{3 * GIB}\n",
    "sys/fs/cgroup/memory/job/memory.stat": "total_inactive_file 0\n",
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/meminfo": MEMINFO}, 9 * GIB),
        ({"proc/meminfo": MEMINFO, **GROUP_2}, 4 * GIB),  # 4 - 3, 2 of files, and swap
        ({"proc/meminfo": MEMINFO, **GROUP_1}, 2 * GIB),
        ({"proc/meminfo": MEMINFO, "proc/self/cgroup": "nonsense"}, 9 * GIB),
    ],
)
def test_the_available_memory_is_the_least_of_machine_and_groups(
    tmp_path: Path, files: dict[str, str], expected: int | None
) -> None:
    assert available_memory(CPU, machine(tmp_path, files)) == expected


def test_this_machine_has_some_memory() -> None:
    found = available_memory(CPU)
    assert found is None or found > 0


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize(("side", "count"), [(128, 1), (1024, 2), (4096, 1)])
def test_the_estimate_is_below_what_the_networks_hold_and_near_it_for_large_images(
    pipeline: Pipeline, side: int, count: int, guided: bool
) -> None:
    cascade = pipeline.cascade
    prior = StageSettings(guidance_scale=3.0 if guided else 1.0)
    plan = plan_generation(pipeline.info, height=side, width=side, prior=prior, decoder=prior)
    found = needed_memory(cascade, plan, count, prior=True)
    traced = dict.fromkeys(found, 0)
    rows = count * (2 if guided else 1)
    b, c, a = (
        type(stage)(stage.config).eval().to("meta")
        for stage in (cascade.stage_b, cascade.stage_c, cascade.stage_a)
    )
    with torch.device("meta"), torch.inference_mode():
        t, latent = torch.ones(rows), torch.zeros(rows, 4, *latent_size(side, side))
        cells = semantics_size(side, side)
        semantics = torch.zeros(rows, b.config.semantic_channels, *cells)
        text_b, text_c = (torch.zeros(rows, 12, n.config.text_width) for n in (b, c))
        known = [*b.parameters(), *c.parameters(), *a.parameters(), latent, semantics]
        with Trace(known) as trace:
            c(semantics, t, c.condition(text_c))
        traced["Stage C"] = trace.peak
        with Trace(known) as trace:
            b(latent, t, b.condition(semantics, text_b, latent_size(side, side)))
        traced["Stage B"] = trace.peak
        with Trace(known) as trace:
            strip = cascade.strip_rows(*latent.shape[2:])
            whole = strip == latent.shape[2]
            a.decode(latent[:count]) if whole else a.decode_in_strips(latent[:count], strip)
        traced["Stage A"] = trace.peak
    for stage, bytes_ in found.items():
        assert bytes_ <= traced[stage], stage
        if side == 4096:
            assert bytes_ > traced[stage] / 2, stage


def test_a_size_that_cannot_fit_is_refused_with_the_need_and_what_there_is(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (
        r"Not enough memory for images of 16384 x 16384 pixels, 1 at once: Stage . needs at least "
        r"[\d.]+ GiB, and 1.00 GiB are available; request a smaller size"
    )
    monkeypatch.setattr(memory_check, "available_memory", lambda device: GIB)
    with pytest.raises(WuerstchenError, match=words):
        pipeline(PROMPT, height=16384, width=16384)
    with pytest.raises(WuerstchenError, match="1000000 at once: Stage"):
        pipeline(PROMPT, num_images_per_prompt=1_000_000)
    assert pixels(pipeline, height=256).shape == (1, 3, 256, 128)


def test_where_memory_is_unknown_nothing_is_refused(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_check, "available_memory", lambda device: None)
    check_memory(pipeline.cascade, plan_generation(pipeline.info, height=10**6 * 128), 1)
