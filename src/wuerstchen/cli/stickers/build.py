"""`wuerstchen stickers build`: the sticker set, from public packages."""

from pathlib import Path
from typing import Annotated

import typer

from wuerstchen.cli.options import progress_bars, tell
from wuerstchen.errors import DataError
from wuerstchen.terminal import print_path

EPILOG = "wuerstchen stickers build stickers"


def build(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to create.")],
    npm: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Take npm tarballs from this folder, and store there what is downloaded.",
        ),
    ] = None,
    fluent_3d: Annotated[
        Path | None,
        typer.Option(
            "--fluent-3d",
            metavar="FOLDER",
            help="A checkout of github.com/laurentlahmy/fluent-emoji-optimized at 7907b9bd, for "
            "the 3D style.",
        ),
    ] = None,
) -> None:
    """Build the sticker set: 1,643 emoji objects in up to six drawing styles.

    It downloads 15 MB from the npm registry, in pinned versions whose SHA-512 is verified, and
    renders them. Compose scenes of the result with `wuerstchen stickers compose OUT SCENES`.
    """
    from wuerstchen.data.stickers.build import build_set, open_packages

    try:
        emoji, drawings = open_packages(npm, fluent_3d, lambda url: tell(f"Downloading {url}"))
        if fluent_3d is None:
            tell(
                "Building the five vector styles without 3D, whose renders are in no package; "
                "name a checkout of its repository with --fluent-3d to add it."
            )
        with progress_bars() as report:
            built = build_set(
                out, emoji, drawings, lambda done, total: report("stickers", done, total)
            )
    except KeyboardInterrupt:
        raise DataError(
            f"Interrupted; nothing was left in {out}. Run the same command again."
        ) from None
    counts = ", ".join(f"{count:,} {part}" for part, count in built.stickers.items())
    tell(f"{built.stickers.total():,} stickers in {len(built.styles)} styles: {counts}.")
    print_path(out)
