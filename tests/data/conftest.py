"""Prepared sets in tests have no plots, which take most of the time."""

from made_sources import without_plots

__all__ = ["without_plots"]
