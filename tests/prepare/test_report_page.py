"""Laws of the report page: what is counted is shown, safe as HTML, and fits narrow windows."""

import re
from pathlib import Path

import pytest
from made_data import write
from made_sources import as_bytes, drawing, some

from wuerstchen.config import PrepareConfig
from wuerstchen.prepare.prepare import prepare

CONFIG = PrepareConfig(size=128, format="png", test_fraction=0.25)


def test_the_page_shows_counts_reasons_and_images(tmp_path: Path) -> None:
    files = some(6) | {"copy.png": as_bytes(drawing(0, 300, 300)), "copy.txt": "<b>a copy</b>"}
    source = write(tmp_path / "source", files | {"bad.png": b"x", "bad.txt": "bad"})
    out = prepare(str(source), tmp_path / "out", CONFIG)
    page = (out / "report.html").read_text()
    assert "6 of 8 images are" in " ".join(page.split()) and "image does not decode" in page
    assert "duplicate with equal pixels" in page and "<b>" not in page
    assert page.count("data:image/jpeg;base64,") >= 8


@pytest.mark.usefixtures("plots")
def test_each_plot_of_the_page_is_an_image_that_a_narrow_window_shows_whole(
    tmp_path: Path,
) -> None:
    files = some(3, width=300) | {"x.png": as_bytes(drawing(9, 200, 400)), "x.txt": "x"}
    out = prepare(str(write(tmp_path / "source", files)), tmp_path / "out", CONFIG)
    page = (out / "report.html").read_text()
    plots = re.findall(r'<img class="plot" alt="histogram: ([^"]+)"', page)
    assert {"width", "height", "aspect ratio"} <= set(plots)
    width = re.search(r"\.plot { width: (\d+)px }", page)
    assert width is not None and int(width[1]) < 500 and "max-width: 100%" in page
