"""The builder makes the published set from pinned packages; all here without network."""

import json
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from made_emoji import COLOURS, EMOJI, write_packages, write_renders
from PIL import Image
from typer.testing import CliRunner

from wuerstchen.cli import app
from wuerstchen.data.stickers import open_sprites
from wuerstchen.data.stickers.build import Built, build_set, open_packages, packages
from wuerstchen.data.stickers.build.held_out import part_of
from wuerstchen.data.stickers.sprites import image_of
from wuerstchen.errors import DataError, SaveError

PUBLISHED = {
    ("adhesive bandage", "flat"): "train",
    ("adhesive bandage", "noto"): "test-cells",
    ("face vomiting", "flat"): "train",
    ("face vomiting", "noto"): "test-cells",
    ("alien monster", "flat"): "test-objects",
    ("alien monster", "noto"): "test-objects",
    ("alien monster", "blob"): "test-objects",
    ("orca", "noto"): "train",
}
"""Rows of the published set's index."""


def build(tmp_path: Path, out: str = "set", renders: Path | None = None) -> Built:
    pins = write_packages(tmp_path / "npm")
    return build_set(tmp_path / out, *open_packages(tmp_path / "npm", renders, pins=pins))


def rows(folder: Path) -> list[dict[str, str]]:
    head, *lines = (folder / "index.tsv").read_text().splitlines()
    return [dict(zip(head.split("\t"), line.split("\t"), strict=True)) for line in lines]


def test_every_cell_is_in_its_part_of_the_published_set(tmp_path: Path) -> None:
    build(tmp_path)
    found = {(row["name"], row["style"]): row["split"] for row in rows(tmp_path / "set")}
    assert {cell: found[cell] for cell in PUBLISHED} == PUBLISHED


@pytest.mark.parametrize(
    ("code", "prefix", "part"),
    [
        ("1F382", "twemoji", "none"),  # birthday cake
        ("1F93A", "fluent-emoji-flat", "none"),  # person fencing
        ("2708", "fluent-3d", "test-cells"),  # airplane
        ("2708", "noto", "train"),
        ("1FACD", "twemoji", "train"),  # orca, in two styles
        ("1FA89", "noto", "train"),  # harp, in two
    ],
)
def test_the_rule_is_that_of_the_published_set(code: str, prefix: str, part: str) -> None:
    assert part_of(code, prefix) == part


def test_a_sticker_shows_its_drawing_on_a_transparent_background(tmp_path: Path) -> None:
    build(tmp_path)
    (orca,) = (each for each in open_sprites(tmp_path / "set").all if each.key == "noto__orca")
    assert (orca.name, orca.style, orca.licence) == ("orca", "noto", "Apache-2.0")
    assert orca.keywords == ("word",)  # and not its own name
    image = image_of(orca)
    assert image.size == (192, 192)  # a disc of 24 of 32 units, at 256 pixels
    pixels = np.asarray(image)
    assert np.abs(pixels[96, 96, :3].astype(int) - COLOURS["noto"]).max() <= 4
    assert pixels[96, 96, 3] == 255 and pixels[0, 0, 3] == 0


def test_a_mirrored_icon_and_flags_and_skin_tones_are_left_out(tmp_path: Path) -> None:
    build(tmp_path)
    names = {row["name"] for row in rows(tmp_path / "set")}
    assert names == set(EMOJI.values()) - {"backhand index pointing right"}


def test_the_metadata_name_part_captions_and_source(tmp_path: Path) -> None:
    build(tmp_path)
    with tarfile.open(tmp_path / "set" / "test-cells-00000.tar") as archive:
        names = archive.getnames()
        content = archive.extractfile("noto__adhesive-bandage.json").read()  # type: ignore[union-attr]
    assert names[:3] == [f"noto__adhesive-bandage.{suffix}" for suffix in ("webp", "txt", "json")]
    record = json.loads(content)
    assert record["captions"] == [
        "adhesive bandage, noto style",
        "a noto emoji of an adhesive bandage",
    ]
    assert (record["code"], record["split"]) == ("1FA79", "test-cells")
    assert (record["group"], record["subgroup"]) == ("animals-nature", "animal-bug")
    assert record["source"] == "@iconify-json/noto"


def test_the_3d_style_is_added_from_a_checkout(tmp_path: Path) -> None:
    built = build(tmp_path, "six", write_renders(tmp_path / "renders"))
    assert built.styles[0] == "3D"
    added = [row for row in rows(tmp_path / "six") if row["style"] == "3D"]
    assert [row["key"] for row in added] == ["fluent-3d__face-vomiting"]
    build(tmp_path, "five")
    rest = [row for row in rows(tmp_path / "six") if row["style"] != "3D"]
    assert rest == rows(tmp_path / "five")  # the other styles keep their parts


def test_the_same_packages_give_the_same_bytes(tmp_path: Path) -> None:
    build(tmp_path, "one")
    build(tmp_path, "two")
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == [
        "index.tsv", "test-cells-00000.tar", "test-objects-00000.tar", "train-00000.tar"
    ]  # fmt: skip
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_changed_tarball_is_refused(tmp_path: Path) -> None:
    pins = write_packages(tmp_path)
    path = tmp_path / pins["noto"].file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"noto-1\.2\.3\.tgz: expected .* 1\.2\.3 with .* sha512-"):
        open_packages(tmp_path, None, pins=pins)
    path.write_bytes(bytes(content) * 2)
    with pytest.raises(DataError, match=f"found more than {pins['noto'].bytes} bytes"):
        open_packages(tmp_path, None, pins=pins)


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """A server of files; its URL."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_missing_tarballs_are_downloaded_verified_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    pins = write_packages(tmp_path / "made")
    noto = pins["noto"]
    content = (tmp_path / "made" / noto.file).read_bytes()
    served = tmp_path / "served" / noto.url.removeprefix(f"{packages.REGISTRY}/")
    served.parent.mkdir(parents=True)
    served.write_bytes(content)
    cache, asked = tmp_path / "cache", []
    with registry(tmp_path / "served") as url:
        monkeypatch.setattr(packages, "REGISTRY", url)
        assert packages.tarball(noto, cache, asked.append) == content
        assert packages.tarball(noto, cache, asked.append) == content  # from the folder
        assert asked == [noto.url] and [path.name for path in cache.iterdir()] == [noto.file]
        with pytest.raises(DataError, match=r"expected to download emojibase-data .* 404"):
            packages.tarball(pins["names"], cache)
        other = replace(noto, integrity="sha512-AA==", version="1.2.3")
        with pytest.raises(DataError, match=r"expected .* sha512-AA==, found"):
            packages.tarball(other, None)
    assert [path.name for path in cache.iterdir()] == [noto.file]


def test_without_a_network_one_sentence_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(packages, "REGISTRY", "http://127.0.0.1:1")
    with pytest.raises(DataError, match=r"put emojibase-data-17\.0\.0\.tgz into a folder"):
        open_packages(tmp_path, None)


def test_a_folder_with_files_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("mine")
    with pytest.raises(SaveError, match="expected an empty folder"):
        build(tmp_path)
    assert (tmp_path / "set" / "mine.txt").read_text() == "mine"


def test_nothing_is_left_of_a_build_that_fails(tmp_path: Path) -> None:
    pins = write_packages(tmp_path / "npm")
    emoji, drawings = open_packages(tmp_path / "npm", None, pins=pins)

    class Broken:
        def __contains__(self, slug: str) -> bool:
            return slug == "orca"

        def draw(self, slug: str) -> Image.Image:
            raise DataError(slug)

    with pytest.raises(DataError, match="orca"):
        build_set(tmp_path / "set", emoji, {**drawings, "emojione": Broken()})
    assert [path.name for path in tmp_path.iterdir()] == ["npm"]


def test_a_renderer_that_is_missing_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(DataError, match=r"needs resvg_py, .*'\.\[stickers\]'"):
        build(tmp_path)


def test_renders_of_another_size_and_folders_without_them_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected 3D renders such as assets/airplane"):
        open_packages(None, tmp_path, pins={})
    with pytest.raises(DataError, match="expected an image of 256 x 256 pixels, found: 128 x 128"):
        build(tmp_path, renders=write_renders(tmp_path / "renders", side=128))


def test_the_command_says_that_3d_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = write_packages(tmp_path / "npm")
    monkeypatch.setattr(packages, "PACKAGES", pins)
    out = tmp_path / "set"
    result = CliRunner().invoke(
        app, ["stickers", "build", str(out), "--npm", str(tmp_path / "npm")]
    )
    assert result.exit_code == 0 and result.stdout == f"{out}\n"
    assert "without 3D" in result.stderr and "--fluent-3d" in result.stderr
    assert "in 3 styles" in result.stderr
