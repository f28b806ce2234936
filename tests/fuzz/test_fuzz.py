"""Damaged and hostile files give results or errors of our tree, in bounded memory and time."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz import child
from fuzz.parsers import PARSERS, Fuzz

Parser = Callable[[Path], Fuzz]

FAST = 12
"""Cases of each parser in the fast tests."""
SAMPLED = 4
"""A quarter of the cases, unless all are asked for."""


@pytest.mark.slow
@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.__name__)
def test_damage_costs_only_the_damaged_file(
    parser: Parser, tmp_path: Path, all_cases: bool
) -> None:
    fuzz: Fuzz = parser(tmp_path)
    cases = PARSERS[parser] if all_cases else PARSERS[parser] // SAMPLED
    outcome = child.run(fuzz.parse, fuzz.inputs, cases, tmp_path)
    assert not outcome.faults, "\n\n".join(outcome.faults)
    print(f"FUZZ {parser.__name__} {outcome.cases} {outcome.taken}")
    assert outcome.cases >= cases
    assert outcome.taken > 0 or not all_cases  # a sample may have no file that is still sound


def test_there_are_enough_cases() -> None:
    assert sum(PARSERS.values()) >= 20_000


FAST_PARSERS = [parser for parser in PARSERS if PARSERS[parser] >= 800]


@pytest.mark.parametrize("parser", FAST_PARSERS, ids=lambda parser: parser.__name__)
def test_a_few_damaged_files(parser: Parser, tmp_path: Path) -> None:
    fuzz: Fuzz = parser(tmp_path)
    outcome = child.run(fuzz.parse, fuzz.inputs, FAST, tmp_path)
    assert not outcome.faults, "\n\n".join(outcome.faults)
    assert outcome.cases >= FAST
