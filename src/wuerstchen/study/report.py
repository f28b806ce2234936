"""An analysis as lines of text, as JSON, and as a page that can be published."""

import html
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from wuerstchen.html_page import html_page, html_table, scrollable
from wuerstchen.study import plots
from wuerstchen.study.analysis import Analysis, Comparison
from wuerstchen.study.proportions import Interval

FILES = ("analysis.json", "study.html", "votes.csv")
"""What `wuerstchen study analyse --out` writes."""

STYLE = """
svg text { font: 13px sans-serif } p { max-width: 46rem }
.key { margin-right: 1.2rem; white-space: nowrap } td:first-child { white-space: nowrap }
"""

_SWATCH = '<span class="key"><span style="color:{}">■</span> {}</span>'
_MARKS = (0.0, 0.25, 0.5, 0.75, 1.0)
_MOST_RATERS = 200
"""In the table of the page."""


def lines(analysis: Analysis) -> Iterator[str]:
    """The figures for a terminal."""
    yield summary(analysis)
    for each in (*analysis.comparisons, *analysis.categories):
        yield _sentence(each)
    if analysis.strengths is None:
        yield f"No strengths: {analysis.no_strengths}"
    else:
        for point in _strength_points(analysis):
            yield f"strength of {point.name}: {point.text}"
    yield from agreement(analysis)
    yield from left_out(analysis)


def as_json(analysis: Analysis) -> bytes:
    """The same in JSON, undefined figures as null."""
    return (json.dumps(_plain(asdict(analysis)), indent=1) + "\n").encode()


def page(analysis: Analysis, title: str) -> bytes:
    """The same as one self-contained HTML file with plots."""
    return html_page(title, "\n".join(_sections(analysis)), STYLE)


def summary(analysis: Analysis) -> str:
    """Size of the study in a sentence."""
    kept = sum(rater.kept for rater in analysis.raters)
    return (
        f"Votes: {analysis.votes:,}; raters: {kept:,}, left out: {len(analysis.raters) - kept:,}; "
        f"systems: {len(analysis.systems)}."
    )


def agreement(analysis: Analysis) -> Iterator[str]:
    """Agreement between raters, and of raters with themselves."""
    if math.isnan(analysis.alpha):
        yield "Krippendorff's alpha: no pair of images was seen by several raters."
    else:
        yield (
            f"Krippendorff's alpha (nominal: one wins, tie, the other wins): {analysis.alpha:.2f}, "
            f"on {analysis.items_shared:,} pairs of images that several raters saw."
        )
    if math.isnan(analysis.kappa):
        yield "Cohen's kappa of repeats: not defined, too few repeats."
    else:
        yield (
            f"Cohen's kappa of {analysis.repeats:,} repeats with the first vote: "
            f"{analysis.kappa:.2f}."
        )


def left_out(analysis: Analysis) -> Iterator[str]:
    """The raters whose votes do not count."""
    for rater in analysis.raters:
        if not rater.kept:
            yield (
                f"Left out: {rater.name}, {rater.catch_right} of {rater.catch_seen} catch pairs "
                f"right, {rater.votes} votes."
            )


def _sections(analysis: Analysis) -> Iterator[str]:
    yield f"<p>{html.escape(summary(analysis))}</p>"
    yield "<h2>Votes</h2><p>"
    yield _SWATCH.format(plots.BLUE, "first system wins") + _SWATCH.format(plots.GREY, "tie")
    yield _SWATCH.format(plots.RED, "second system wins") + "</p>"
    shares = [
        plots.Share(_name(each), each.result.wins, each.result.ties, each.result.losses)
        for each in analysis.comparisons
    ]
    yield scrollable(plots.share_bars("Shares of wins, ties and losses", shares))
    yield "<h2>Win rates</h2>"
    yield (
        "<p>Wins of the first system among decided votes; ties are left out. The interval (95 %) "
        "takes raters as clusters: Wilson's interval at the number of votes divided by the design "
        "effect, which says how much the votes of one rater are alike. With one rater it takes "
        "all votes as independent.</p>"
    )
    yield _rate_plot(analysis.comparisons)
    yield _rate_table(analysis.comparisons)
    yield "<h2>Strengths</h2>" + _strengths(analysis)
    if analysis.categories:
        yield "<h2>By category of prompt</h2>" + _rate_plot(analysis.categories)
        yield _rate_table(analysis.categories)
    yield "<h2>Agreement</h2>"
    yield "".join(f"<p>{html.escape(line)}</p>" for line in agreement(analysis))
    yield "<h2>Raters</h2>" + _rater_table(analysis)


def _rate_plot(comparisons: Sequence[Comparison]) -> str:
    rows = [
        plots.Point(
            _name(each),
            each.result.rate,
            _interval(each),
            f"{100 * each.result.rate:.1f} % of {each.result.wins + each.result.losses:,}",
        )
        for each in comparisons
        if not math.isnan(each.result.rate)
    ]
    return scrollable(plots.points("Win rates", rows, 0, 1, _MARKS, ".0%")) if rows else ""


def _rate_table(comparisons: Sequence[Comparison]) -> str:
    rows: list[tuple[str, ...]] = [
        (
            *("systems", "wins", "ties", "losses", "win rate", "95 %", "ties as half"),
            *("design effect", "95 %, Wilson", "p, exact", "p, clustered", "p, Holm"),
        )
    ]
    for each in comparisons:
        found = each.result
        rows.append(
            (
                _name(each),
                f"{found.wins:,}",
                f"{found.ties:,}",
                f"{found.losses:,}",
                _percent(found.rate),
                _range(_interval(each)),
                _percent(found.rate_with_ties),
                "–" if found.design_effect is None else f"{found.design_effect:.2f}",
                _range(found.wilson),
                _p(found.p),
                _p(found.p_clustered),
                _p(each.p_adjusted),
            )
        )
    note = (
        "<p>“95 %, Wilson” and “p, exact” (the sign test of equal wins and losses) take all "
        "votes as independent. “p, clustered” does not; “p, Holm” is that value, adjusted for "
        "the number of rows.</p>"
    )
    return html_table(rows) + note


def _strengths(analysis: Analysis) -> str:
    found = analysis.strengths
    if found is None:
        return f"<p>{html.escape(analysis.no_strengths)}</p>"
    rows = _strength_points(analysis)
    ends = [end for row in rows for end in (row.interval or (row.value,))]
    reach = max(0.5, math.ceil(2 * max(map(abs, ends))) / 2)
    marks = [-reach, -reach / 2, 0.0, reach / 2, reach]
    name = "Davidson" if found.nu else "Bradley-Terry"
    sentence = (
        f"{name} strengths in logits, of sum zero: a difference d is a chance of 1 / (1 + exp(-d)) "
        "in a decided vote. Intervals (95 %) by a bootstrap over raters"
        + ("." if found.intervals else ": none, there are too few raters or votes.")
        + (f" Tie parameter {found.nu:.2f}." if found.nu else "")
    )
    plot = plots.points("Strengths", rows, -reach, reach, marks, "+.2f")
    return f"<p>{html.escape(sentence)}</p>" + scrollable(plot)


def _strength_points(analysis: Analysis) -> list[plots.Point]:
    found = analysis.strengths
    if found is None:
        return []
    intervals = found.intervals or (None,) * len(found.values)
    rows = [
        plots.Point(
            name,
            value,
            interval,
            f"{value:+.2f}" + (f" [{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else ""),
        )
        for name, value, interval in zip(analysis.systems, found.values, intervals, strict=True)
    ]
    return sorted(rows, key=lambda row: -row.value)


def _rater_table(analysis: Analysis) -> str:
    rows: list[tuple[str, ...]] = [("rater", "votes", "catch pairs right", "repeats alike", "")]
    rows += [
        (
            rater.name,
            f"{rater.votes:,}",
            f"{rater.catch_right} of {rater.catch_seen}",
            f"{rater.repeats_same} of {rater.repeats_seen}",
            "" if rater.kept else "left out",
        )
        for rater in analysis.raters[:_MOST_RATERS]
    ]
    more = len(analysis.raters) - _MOST_RATERS
    rest = f"<p>And {more:,} more, in analysis.json.</p>" if more > 0 else ""
    return html_table(rows, (0, 4)) + rest


def _name(each: Comparison) -> str:
    return f"{each.a} : {each.b}" + (f", {each.category}" if each.category else "")


def _sentence(each: Comparison) -> str:
    found = each.result
    interval = _interval(each)
    return (
        f"{_name(each)}: {_percent(found.rate)} of {found.wins + found.losses:,} decided votes "
        f"for {each.a}, 95 % {_range(interval)}, p {_p(each.p_adjusted)}; "
        f"{found.wins:,} wins, {found.ties:,} ties, {found.losses:,} losses"
    )


def _interval(each: Comparison) -> Interval:
    return each.result.wilson if each.result.clustered is None else each.result.clustered


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f} %"


def _range(interval: Interval | None) -> str:
    return "–" if interval is None else f"{100 * interval.low:.1f} to {100 * interval.high:.1f} %"


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
