"""Planned peaks of memory are the measured ones, within 15 %."""

import pytest

from benchmarks.memory_plan import CASES, measured, planned


@pytest.mark.parametrize(
    "name",
    [
        "c, small",
        *(pytest.param(name, marks=pytest.mark.slow) for name in CASES if name != "c, small"),
    ],
)
def test_the_planned_peak_is_the_measured_one(name: str, all_cases: bool) -> None:
    if name.endswith("middle") and not all_cases:
        pytest.skip("the small size is the sample; --all-cases takes both")
    found = measured(name)
    assert found > 50 * 2**20
    assert planned(CASES[name]).total == pytest.approx(found, rel=0.15)
