"""A model of the published sizes opens like the published one, in the promised memory."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STAGE_B = 1_055_365_280
"""Parameters of the largest component, published."""
ACTIVATIONS = 600e6
"""Bytes for maps of 256 x 256 pixels, the largest of which has 5 MB, and for tokenizers, matrix
libraries and the allocator; at most 520 MB were measured."""
FACTOR = 1.3
"""Allowed memory of weights and their copies, relative to the largest component."""


def run(*words: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of the two repositories in a dtype, written once."""

    @cache
    def write(dtype: str) -> Path:
        folder = tmp_path_factory.mktemp(dtype)
        run("benchmarks.full_size", folder, "--dtype", dtype)
        return folder

    return write


def measured_in_low_memory(folder: Path, dtype: str) -> dict[str, int]:
    """Memory of a process that opened the pair and generated 256 x 256 pixels."""
    output = run(
        "benchmarks.peaks", "one", "low_memory", "256", folder, "--dtype", dtype, "--files", dtype
    )
    held: dict[str, int] = json.loads(output.splitlines()[-1])
    assert held["finite"], "numbers that are not finite prove nothing"
    return held


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="Linux counts pages in /proc")
@pytest.mark.parametrize(("dtype", "width"), [("float32", 4), ("bfloat16", 2)])
def test_an_image_needs_the_memory_of_the_largest_component_and_a_third(
    written: Callable[[str], Path], dtype: str, width: int, all_cases: bool
) -> None:
    if dtype != "float32" and not all_cases:
        pytest.skip("float32 is the sample; --all-cases takes both")
    held = measured_in_low_memory(written(dtype), dtype)
    part = STAGE_B * width
    # The system may reclaim pages of mapped files, which then are missing from the peak.
    own = held["own"] - held["own_before"]
    seen = held["seen"] - held["before"]
    assert max(seen, own + held["largest"]) <= FACTOR * part + ACTIVATIONS
    assert held["largest"] == pytest.approx(part, rel=1e-3)


def test_inspect_counts_the_published_parameters_in_the_headers_alone(
    written: Callable[[str], Path],
) -> None:
    pair = written("float32")
    found = {
        part["title"]: part["parameters"]
        for folder in ("wuerstchen", "wuerstchen-prior")
        for part in json.loads(run("wuerstchen", "inspect", "--json", pair / folder))["components"]
    }
    assert {"Stage A": 18_406_894, "Stage B": STAGE_B, "Stage C": 993_636_896}.items() <= (
        found.items()
    )
