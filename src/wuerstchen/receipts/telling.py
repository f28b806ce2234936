"""Receipts as text for a terminal."""

from collections.abc import Sequence

from wuerstchen.receipts.compare import (
    as_text,
    heads,
    heads_of_lines,
    lines_of,
    row_of,
    row_of_published,
    tariff,
)
from wuerstchen.receipts.published import Published
from wuerstchen.receipts.receipt import Receipt


def tell(receipts: Sequence[Receipt], published: Sequence[Published]) -> str:
    """All receipts in one table, what counts in each, and each of ours by stage and kind.

    receipts  at least one; the terms of the first hold for the published ones
    """
    terms = receipts[0].terms
    rows = [row_of(receipt) for receipt in receipts]
    rows += [row_of_published(entry, terms) for entry in published]
    parts = [as_text([heads(terms.currency), *(row.cells() for row in rows)], (0, 8))]
    for receipt in receipts:
        table = [heads_of_lines(receipt.terms.currency), *lines_of(receipt)]
        parts.append(f"{receipt.name}\n{as_text(table, (0, 1))}")
    notes = [f"{row.title}: {row.note}" for row in rows]
    parts.append("\n".join(["What counts:", *notes, tariff(terms)]))
    return "\n\n".join(parts)
