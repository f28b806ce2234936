"""Prepared sets in tests have no plots, which take most of the time."""

import pytest
from made_sources import without_plots

__all__ = ["without_plots"]


@pytest.fixture
def plots() -> None:
    """The page of a preparation has its plots."""
