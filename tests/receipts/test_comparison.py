"""The table and the self-contained page: our receipts compared with published ones."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_phases import amounts, made
from typer.testing import CliRunner

from wuerstchen.cli import app
from wuerstchen.errors import ConfigError, ModelFolderError
from wuerstchen.receipts import Receipt, Tariff, write_receipts
from wuerstchen.receipts.phases import append_phases
from wuerstchen.receipts.published import choose, published_receipts

VOID = {"meta", "rect", "link", "img", "br"}


class Page(HTMLParser):
    """Follows open tags, and collects the text and every address."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        assert tag != "script"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "<b>mine"
    lost = made("02", end="stopped", training=amounts(36, 4))
    append_phases(folder, [made("01", training=amounts(3600, 1234)), lost])
    return folder


def run(*words: str) -> str:
    done = CliRunner().invoke(app, ["receipt", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def line_of(text: str, title: str) -> list[str]:
    (line,) = [line for line in text.split("\n\n")[0].splitlines() if line.startswith(title)]
    return line.removeprefix(title).split()


def test_the_page_is_whole_and_needs_nothing_else(model: Path) -> None:
    write_receipts(model, Tariff(per_device_hour=1.0))
    text = (model / "receipt.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == [] and page.addresses == []
    assert "http" not in text and "url(" not in text and "@import" not in text
    for words in ("<b>mine", "failed attempts", "Stable Diffusion 2.1", "200,000", "Abacus"):
        assert words in page.text


def test_every_wide_table_scrolls_in_a_frame_of_its_own(model: Path) -> None:
    write_receipts(model, Tariff())
    text = (model / "receipt.html").read_text(encoding="utf-8")
    assert text.count("<table") == text.count('<div class="wide" tabindex="0"><table') == 4
    assert ".wide { overflow-x: auto" in text


def test_the_table_compares_ours_with_published_ones(model: Path) -> None:
    text = run(str(model), "--price", "2", "--against", "wuerstchen-v2,sd-2.1")
    hours, failed, flops, images, kwh, kg, money, *device = line_of(text, "<b>mine")
    assert (hours, failed, images, device) == ("2.02", "0.02", "1,238", ["Abacus"])
    assert (flops, kwh, kg, money) == ("6.19e+03", "364", "145", "4.04")
    published = line_of(text, "Würstchen v2, Stage C")
    assert published[:7] == ["24,602", "–", "–", "1,420,000,000", "–", "2,276", "49,204"]
    assert line_of(text, "Stable Diffusion 2.1")[0] == "200,000"
    assert "Stable Diffusion 1.4" not in text
    assert "2 USD per device hour" in text and "50% measured, the rest estimated" in text


def test_several_receipts_are_shown_with_their_sum(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    append_phases(other, [made("03", training=amounts(1800, 6))])
    text = run(str(model), str(other), "--against", "none")
    assert line_of(text, "other")[0] == "1"
    assert line_of(text, "together")[0] == "3.02"


def test_a_tariff_is_kept_until_another_is_given(model: Path) -> None:
    run(str(model), "--price", "2", "--currency", "EUR")
    assert "2 EUR per device hour" in run(str(model))
    assert "3 EUR per device hour" in run(str(model), "--price", "3")


def test_receipts_with_different_prices_are_not_compared(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    append_phases(other, [made("03", training=amounts(1800, 6))])
    run(str(model), "--price", "2")
    run(str(other), "--price", "10")
    before = (other / "receipt.json").read_bytes()
    with pytest.raises(ConfigError, match=r"same --price to .* found 2 USD, 10 USD; set one"):
        run(str(model), str(other), "--country", "DEU")
    assert (other / "receipt.json").read_bytes() == before
    assert "3.02" in line_of(run(str(model), str(other), "--price", "1"), "together")


def test_json_has_the_receipts_their_sum_and_published_ones(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    append_phases(other, [made("03", training=amounts(1800, 6))])
    found = json.loads(run(str(model), str(other), "--json", "--against", "sd-2.1"))
    assert list(found) == ["receipts", "together", "published"]
    names = [Receipt.model_validate(each).name for each in found["receipts"]]
    assert names == ["<b>mine", "other"]
    assert Receipt.model_validate(found["together"]).total.images == 1244
    assert [each["name"] for each in found["published"]] == ["sd-2.1"]
    alone = json.loads(run(str(model), "--json", "--against", "none"))
    assert len(alone["receipts"]) == 1
    assert alone["together"] is None and alone["published"] == []


def test_the_bundled_model_points_to_its_hours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFolderError, match=r"kept none; docs/models/stickers\.md"):
        run("stickers")
    append_phases(Path("stickers"), [made("01", training=amounts(3600, 5))])
    assert line_of(run("stickers"), "stickers")[0] == "2", "a folder of that name goes first"


def test_small_values_have_smaller_units(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    little = amounts(0.01, 5).model_copy(update={"kwh": 3.51e-5, "kg": 1.4e-5})
    append_phases(folder, [made("01", training=little)])
    text = run(str(folder), "--against", "none")
    assert "e-0" not in text
    found = line_of(text, "small")
    assert found[:2] == ["0.02", "s"] and found[5:9] == ["35.1", "mWh", "14", "mg"]


def test_countries_are_case_insensitive(model: Path) -> None:
    pytest.importorskip("codecarbon")
    assert run(str(model), "--country", "deu") == run(str(model), "--country", "DEU")
    assert "the average of world (" in run(str(model), "--country", "World")


def test_an_unknown_published_receipt_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"'sd-2\.0'; did you mean sd-2\.1\?"):
        choose("wuerstchen-v1,sd-2.0")
    assert choose("none") == [] and len(choose("all")) == len(published_receipts())


def test_every_published_receipt_has_a_source_and_no_made_up_number() -> None:
    for entry in published_receipts().values():
        assert entry.source and entry.counts
        assert entry.kg is None or entry.device_hours
    # The authors assumed 250 W at 0.37 kg/kWh, which checks hours against kilograms.
    paper = published_receipts()["wuerstchen-v2"]
    assert paper.kg == pytest.approx((paper.device_hours or 0) * 0.25 * 0.37, rel=1e-4)
