"""Votes in files, and their analysis: what counts, what is left out, what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from wuerstchen.cli import app
from wuerstchen.errors import DataError
from wuerstchen.study import report
from wuerstchen.study.analysis import Analysis, analyse
from wuerstchen.study.votes import Choice, Vote, VoteKind, read_votes, write_votes


def vote(
    choice: Choice, rater: str = "ann", item: str = "1", kind: VoteKind = "comparison"
) -> Vote:
    return Vote(rater, item, "left", "right", choice, "colours", kind)


def random_votes(seed: int = 0) -> list[Vote]:
    """Five raters on the same forty items, with a strong preference for `left`."""
    rng = np.random.default_rng(seed)
    choices: list[Choice] = ["a", "tie", "b"]
    return [
        replace(
            vote(choices[rng.choice(3, p=[0.6, 0.2, 0.2])], f"rater {rater}", str(item)),
            category=("counting", "colours")[item % 2],
        )
        for rater in range(5)
        for item in range(40)
    ]


def analysed(votes: list[Vote]) -> Analysis:
    return analyse(votes, replicates=100)


def test_written_votes_are_read_again(tmp_path: Path) -> None:
    votes = [*random_votes(), vote("tie", 'Müller, "x"\n', kind="catch")]
    path = tmp_path / "votes.csv"
    path.write_bytes(write_votes([replace(each, rater=each.rater.strip()) for each in votes]))
    assert read_votes(path) == [replace(each, rater=each.rater.strip()) for each in votes]


def test_the_order_of_the_systems_does_not_matter() -> None:
    votes = random_votes()
    other: dict[Choice, Choice] = {"a": "b", "b": "a", "tie": "tie"}
    swapped = [
        replace(each, a=each.b, b=each.a, choice=other[each.choice]) if index % 3 else each
        for index, each in enumerate(votes)
    ]
    assert report.as_json(analysed(votes)) == report.as_json(analysed(swapped))


def test_categories_add_up_to_all_votes() -> None:
    found = analysed(random_votes())
    whole = found.comparisons[0].result
    assert sum(each.result.wins for each in found.categories) == whole.wins
    assert sum(each.result.ties for each in found.categories) == whole.ties
    assert [each.category for each in found.categories] == ["colours", "counting"]


def test_raters_who_fail_the_catch_pairs_do_not_count() -> None:
    bad = [replace(each, rater="bot", choice="b") for each in random_votes() if "0" in each.rater]
    catches = [vote("a" if index < 3 else "tie", "bot", f"c{index}", "catch") for index in range(5)]
    good = [vote("a", "rater 1", f"c{index}", "catch") for index in range(5)]
    found = analysed([*random_votes(), *bad, *catches, *good])
    assert [rater.name for rater in found.raters if not rater.kept] == ["bot"]
    assert found.comparisons == analysed(random_votes()).comparisons
    assert "Left out: bot, 3 of 5 catch pairs right" in "\n".join(report.lines(found))


def test_repeats_count_for_kappa_only() -> None:
    votes = random_votes()
    repeats = [replace(each, kind="repeat") for each in votes if int(each.item) < 10]
    found = analysed([*votes, *repeats])
    assert found.kappa == 1
    assert found.repeats == 50
    assert found.comparisons == analysed(votes).comparisons
    assert all((r.repeats_same, r.repeats_seen) == (10, 10) for r in found.raters)


def test_nobody_with_the_catch_pairs_right_is_an_error() -> None:
    with pytest.raises(DataError, match="catch pairs right, found none among 1"):
        analysed([vote("a"), vote("b", item="2", kind="catch")])


def test_a_winner_of_everything_has_rates_without_strengths() -> None:
    found = analysed([vote("a", f"rater {n}", str(n)) for n in range(6)])
    assert found.strengths is None
    assert found.comparisons[0].result.rate == 1
    assert "never lost" in report.page(found, "study").decode()


def test_ties_alone_do_not_bound_the_strength_of_a_system_that_never_lost() -> None:
    choices: list[Choice] = ["a"] * 10 + ["tie"] * 2
    found = analysed([vote(each, f"rater {n % 4}", str(n)) for n, each in enumerate(choices)])
    assert found.strengths is None
    assert "never lost" in report.page(found, "study").decode()
    assert "nan" not in "\n".join(report.lines(found)).lower().replace("krippendorff", "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rater,item,a,b\n", "found no choice"),
        ("rater,item,a,b,choice\n", "found none"),
        ("rater,item,a,b,choice\nann,1,x,y,left\n", "line 2.*a, b or tie, found left"),
        ("rater,item,a,b,choice\nann,,x,y,a\n", "line 2.*found no item"),
        ("rater,item,a,b,choice\nann,1,x,x,a\n", "found x twice"),
        ("rater,item,a,b,choice\nann,1,x,y,a\nann,1,x,y,b\n", "two of rater ann on item 1"),
        ("rater,item,a,b,choice,kind\nann,1,x,y,a,odd\n", "repeat or catch, found odd"),
        ("rater,item,a,b,choice\n\xff", "UTF-8"),
    ],
)
def test_bad_files_are_refused_in_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "votes.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=words):
        read_votes(path)


def test_the_command_writes_the_report(tmp_path: Path) -> None:
    path, out = tmp_path / "votes.csv", tmp_path / "report"
    path.write_bytes(write_votes(random_votes()))
    done = CliRunner().invoke(app, ["study", "analyse", str(path), "--out", str(out)])
    assert done.exit_code == 0, done.output
    figures = json.loads((out / "analysis.json").read_text())
    wins = sum(each.choice == "a" for each in random_votes())
    assert figures["comparisons"][0]["result"]["wins"] == wins
    page = (out / "study.html").read_text()
    assert "<svg" in page and "http" not in page and "script" not in page
    assert (out / "votes.csv").read_bytes() == path.read_bytes()
    assert "Votes: 200; raters: 5," in done.output


def test_names_in_votes_are_escaped_on_the_page() -> None:
    found = analysed([replace(each, a="<script>", b="y&z") for each in random_votes()])
    page = report.page(found, "<b>").decode()
    assert "<script>" not in page and "<b>" not in page
    assert "y&amp;z" in page
