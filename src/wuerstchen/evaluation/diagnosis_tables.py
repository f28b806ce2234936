"""A diagnosis as sentences and tables for people."""

from collections.abc import Iterator, Sequence

from wuerstchen.evaluation.chain import WAYS
from wuerstchen.evaluation.diagnosis import Denoising, Detail, Diagnosis, Following
from wuerstchen.evaluation.distances import Gap
from wuerstchen.evaluation.frequency_bands import BANDS

LABELS = ("A alone", "B + A from true semantics", "all three from the caption")
"""Of the three ways."""

Rows = list[list[str]]
"""The first is the head."""


def lines(found: Diagnosis) -> Iterator[str]:
    """The verdict, then the tables, with even columns."""
    yield from found.verdict.sentences
    for title, rows in tables(found).items():
        yield ""
        yield title
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for first, *others in rows:
            cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
            yield "  ".join([f"  {first:{widths[0]}}", *cells])


def tables(found: Diagnosis) -> dict[str, Rows]:
    """Tables by title."""
    return {
        "Error against held-out images": _errors(found.detail),
        "Contrast kept, by the length of waves": _contrasts(found.detail),
        "Training captions whose object is nearest": _following(found.following),
        "Semantics drawn for held-out captions, against the true ones": _semantics(found.semantics),
        "Denoising error by noise level": _denoising(found.denoising),
    }


def _errors(detail: Detail) -> Rows:
    rows = [["", "PSNR, dB", "95 %", "share of error", *(f"of {band}" for band in BANDS)]]
    for k, (label, figure) in enumerate(zip(LABELS, detail.psnr, strict=False)):
        shares = [detail.band_shares[band] for band in BANDS]
        rows.append(
            [
                label,
                f"{figure.value:.2f}",
                figure.interval("{:.2f}".format),
                *_percents([detail.shares[k]]),
                *_percents(shares if k == 0 else [1 - share for share in shares]),
            ]
        )
    return rows


def _contrasts(detail: Detail) -> Rows:
    kept = [[f"{detail.contrasts[way][band]:.2f}" for band in BANDS] for way in WAYS]
    return [["", *BANDS], *([label, *row] for label, row in zip(LABELS, kept, strict=True))]


def _following(found: Following) -> Rows:
    rows = [["", "followed", "95 %", "n", "lost here", "share of lost"]]
    shares = ["-"] * len(LABELS) if found.shares is None else _percents(found.shares)
    for label, way, gone, share in zip(LABELS, found.ways, found.lost, shares, strict=True):
        value, lost = _percents([way.value, gone.share])
        rows.append([label, value, way.interval("{:.1%}".format), str(way.n), lost, share])
    return rows


def _semantics(gap: Gap) -> Rows:
    figures = (gap.distance, gap.by_chance, gap.times_chance, gap.contrast)
    return [
        ["Fréchet distance", "by chance", "times chance", "contrast"],
        [f"{figure:.2f}" for figure in figures],
    ]


def _denoising(found: Denoising) -> Rows:
    columns = {
        "B held out": found.held_out_b,
        "B training": found.trained_b,
        "B guess": found.guess_b,
        "C held out": found.held_out_c,
        "C training": found.trained_c,
        "C guess": found.guess_c,
    }
    errors = zip(found.times, *columns.values(), strict=True)
    return [
        ["t", *columns],
        *([f"{t:.2f}", *(f"{error:.4f}" for error in row)] for t, *row in errors),
    ]


def _percents(shares: Sequence[float]) -> list[str]:
    return [f"{share:.1%}" for share in shares]
