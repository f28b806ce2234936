"""Receipts as text for a terminal, and as JSON for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict

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


def to_json(
    receipts: Sequence[Receipt], together: Receipt | None, published: Sequence[Published]
) -> str:
    """An object with `receipts`, `together` (null for a single one) and `published`."""
    found = {
        "receipts": [receipt.model_dump(mode="json") for receipt in receipts],
        "together": None if together is None else together.model_dump(mode="json"),
        "published": [asdict(entry) for entry in published],
    }
    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
