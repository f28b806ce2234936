"""Being here puts this folder on the import path, for the helpers that several tests share."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "slow tests take all cases, where they otherwise take a sample"
    parser.addoption("--all-cases", action="store_true", help=text)


@pytest.fixture(scope="session")
def all_cases(request: pytest.FixtureRequest) -> bool:
    """Whether to take all cases: every write that a kill can come before, every damaged file."""
    return bool(request.config.getoption("--all-cases"))
