"""HTML pages and tables for reports: self-contained single files."""

import base64
import html
from collections.abc import Sequence

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
       color: #1c1c1c; background: #fff }
h1 { font-size: 1.5rem; overflow-wrap: anywhere } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse }
.wide { overflow-x: auto; background-attachment: local, local, scroll, scroll;
        background-image: linear-gradient(to right, #fff 40%, #fff0),
                          linear-gradient(to left, #fff 40%, #fff0),
                          linear-gradient(to right, #0003, #0000),
                          linear-gradient(to left, #0003, #0000);
        background-position: left, right, left, right; background-repeat: no-repeat;
        background-size: 3rem 100%, 3rem 100%, 1rem 100%, 1rem 100% }
td, th { padding: .2rem .9rem .2rem 0; text-align: left; vertical-align: top }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
tr.sums td { border-top: 1px solid #999; font-weight: 600 }
img { max-width: 100%; border-radius: 3px } svg { max-width: 100%; height: auto }
"""


def html_page(title: str, body: str, style: str = "") -> bytes:
    """A complete document in UTF-8.

    body   HTML; the caller escapes text from outside
    style  additional CSS for this page
    """
    name = html.escape(title)
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{STYLE}{style}</style></head><body><h1>{name}</h1>\n{body}\n</body></html>\n"
    )
    return text.encode("utf-8", "replace")


def html_table(
    rows: Sequence[Sequence[str]], texts: Sequence[int] = (0,), *, sums: bool = False
) -> str:
    """Rows of plain text as a table; the first row is the header.

    texts  columns of text; all others hold numbers and are right-aligned
    sums   whether the last row is the total
    """
    lines = []
    for number, row in enumerate(rows):
        tag = "td" if number else "th"
        kinds = ["" if index in texts else ' class="number"' for index in range(len(row))]
        cells = [
            f"<{tag}{kind}>{html.escape(cell)}</{tag}>"
            for kind, cell in zip(kinds, row, strict=True)
        ]
        last = ' class="sums"' if sums and number == len(rows) - 1 else ""
        lines.append(f"<tr{last}>{''.join(cells)}</tr>")
    return scrollable(f"<table>{''.join(lines)}</table>")


def html_image(content: bytes, kind: str, alt: str) -> str:
    """An image inside the page.

    kind  its format, such as png
    """
    data = base64.b64encode(content).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/{kind};base64,{data}">'


def scrollable(element: str) -> str:
    """HTML in a frame that scrolls sideways on a narrow screen.

    A shadow at an edge shows that it can be scrolled; at the end it is covered in white.
    """
    return f'<div class="wide" tabindex="0">{element}</div>'
