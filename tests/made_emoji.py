"""Small npm packages with a few emoji, in the formats of the real ones."""

import base64
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

from made_data import to_bytes
from PIL import Image

from wuerstchen.data.stickers.build import Package

EMOJI = {
    "1F92E": "face vomiting",
    "1FA79": "adhesive bandage",
    "1F47E": "alien monster",
    "1FACD": "orca",
    "1F449": "backhand index pointing right",
}
"""Real names and codes, whose parts are known from the published set."""

FLAG, SKIN = ("1F3F3", "white flag"), ("1F3FB", "light skin tone")
"""Of groups that are left out."""

STYLES = {"flat": "fluent-emoji-flat", "noto": "noto", "blob": "noto-v1"}

COLOURS = {"flat": (200, 30, 40), "noto": (20, 160, 70), "blob": (30, 60, 190)}
"""Each drawing is a disc of its style's colour."""


def slug(name: str) -> str:
    return name.replace(" ", "-")


def write_packages(folder: Path) -> dict[str, Package]:
    """Tarballs in a folder, and their pins by style; `names` has the names."""
    names = [(code, name, 3) for code, name in EMOJI.items()]
    names += [(*FLAG, 9), (*SKIN, 2)]
    data = [
        {"label": name, "hexcode": code, "tags": ["word", name], "group": group, "subgroup": 1}
        for code, name, group in names
    ]
    groups = [(2, "component"), (3, "animals-nature"), (9, "flags")]
    messages = {
        "groups": [{"key": key, "order": order, "message": key} for order, key in groups],
        "subgroups": [{"key": "animal-bug", "order": 1, "message": "bugs"}],
    }
    files = {"en/data.json": data, "en/messages.json": messages}
    packages = {"names": write_package(folder, "emojibase-data", files)}
    for style, prefix in STYLES.items():
        name = f"@iconify-json/{prefix}"
        packages[style] = write_package(folder, name, {"icons.json": icons(style, prefix)})
    return packages


def icons(style: str, prefix: str) -> object:
    """An icon for every name but the last, which is a mirrored alias."""
    disc = '<circle cx="16" cy="16" r="12" fill="#{:02x}{:02x}{:02x}"/>'.format(*COLOURS[style])
    *drawn, mirrored = map(slug, [*EMOJI.values()])
    bodies = {name: {"body": disc} for name in [*drawn, slug(FLAG[1]), slug(SKIN[1])]}
    alias = {"parent": drawn[0], "hFlip": True}
    return {
        "prefix": prefix,
        "width": 32,
        "height": 32,
        "icons": bodies,
        "aliases": {mirrored: alias},
    }


def write_package(folder: Path, name: str, files: Mapping[str, object]) -> Package:
    """A tarball as npm packs it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, value in files.items():
            content = json.dumps(value).encode()
            info = tarfile.TarInfo(f"package/{path}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    content = gzip.compress(buffer.getvalue(), mtime=0)
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    package = Package(name, "1.2.3", len(content), f"sha512-{digest}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / package.file).write_bytes(content)
    return package


def write_renders(folder: Path, side: int = 256) -> Path:
    """A checkout with a 3D render of the first emoji, opaque and grey."""
    name = next(iter(EMOJI.values()))
    path = folder / "assets" / name / "Default" / "3D_256.webp"
    path.parent.mkdir(parents=True)
    image = Image.new("RGBA", (side, side), (90, 90, 90, 255))
    path.write_bytes(to_bytes(image, "WEBP", lossless=True))
    return folder
