"""Being here puts this folder on the import path, for the helpers that several tests share."""

import os

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "slow tests take all cases, where they otherwise take a sample"
    parser.addoption("--all-cases", action="store_true", help=text)
    text = "only the tests marked `device`, on a GPU where there is one; without it GPUs are hidden"
    parser.addoption("--device", action="store_true", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs from this process and those that it starts, before torch looks for them.

    Laws that hold bit for bit hold on the CPU; a process that has used a GPU cannot be forked; and
    Accelerate keeps the first device of a process.
    """
    if not config.getoption("--device"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--device"):
        others = [item for item in items if not item.get_closest_marker("device")]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item.get_closest_marker("device")]


@pytest.fixture(scope="session")
def all_cases(request: pytest.FixtureRequest) -> bool:
    """Whether to take all cases: every write that a kill can come before, every damaged file."""
    return bool(request.config.getoption("--all-cases"))
