"""Open the packages of the sticker set: names, and the drawings of each style."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from wuerstchen.data.stickers.build import packages
from wuerstchen.data.stickers.build.drawings import Drawings, RenderedDrawings, VectorDrawings
from wuerstchen.data.stickers.build.names import Emoji, read_names
from wuerstchen.data.stickers.build.packages import Package, json_member, tarball


def open_packages(
    npm: Path | None,
    fluent_3d: Path | None,
    on_download: Callable[[str], None] = lambda url: None,
    pins: Mapping[str, Package] | None = None,
) -> tuple[Sequence[Emoji], Mapping[str, Drawings]]:
    """All emoji, and the drawings by style.

    npm        folder with tarballs of the packages; those that are not there are downloaded to it
    fluent_3d  checkout with 3D renders; None leaves the style out
    pins       the packages by style, and `names`; by default those of the published set

    Raises DataError if a package cannot be had, or is not the pinned one.
    """
    pins = packages.PACKAGES if pins is None else pins
    drawings: dict[str, Drawings] = {}
    if fluent_3d is not None:
        drawings["3D"] = RenderedDrawings(fluent_3d)
    tarballs = {name: tarball(each, npm, on_download) for name, each in pins.items()}
    for name, content in tarballs.items():
        if name != "names":
            drawings[name] = VectorDrawings(json_member(pins[name], content, "icons.json"))
    data, messages = (
        json_member(pins["names"], tarballs["names"], f"en/{file}.json")
        for file in ("data", "messages")
    )
    return read_names(data, messages), drawings
