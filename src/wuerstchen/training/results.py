"""What a finished run leaves for later ones: finished.json, and digests of the networks it wrote.

The digests are relative to the folder of the run: `sha256sum -c SHA256SUMS` checks them there.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from wuerstchen.atomic_write import write_file
from wuerstchen.config import Config
from wuerstchen.digests import SUMS, file_digest, read_sums, sums_text
from wuerstchen.errors import TrainingError
from wuerstchen.parsing import ParseError, parse_object, read_bytes
from wuerstchen.receipts.phases import FINISHED
from wuerstchen.training.origins import run_folder
from wuerstchen.training.stage import RunName, training_of
from wuerstchen.weights.component_files import component_in
from wuerstchen.weights.layout import ComponentName

EXPORTED: dict[RunName, tuple[ComponentName, ...]] = {
    "a": ("stage_a",),
    "b-pretraining": ("compressor",),
    "b": ("compressor", "stage_b"),
    "c-pretraining": ("text_c",),
    "c": (),
}
"""The components of a run that later runs read."""

READS: dict[RunName, tuple[RunName, ...]] = {
    "a": (),
    "b-pretraining": ("a",),
    "b": ("a", "b-pretraining"),
    "c-pretraining": ("a", "b"),
    "c": ("a", "b", "c-pretraining"),
}
"""The runs whose results a run reads."""


def is_finished(folder: Path, name: str) -> bool:
    """Whether run `name` of this model folder is complete."""
    return (folder / "runs" / name / FINISHED).is_file()


def finished_images(folder: Path, name: str) -> int | None:
    """The images of a finished run; None if its file does not say."""
    try:
        images = parse_object(read_bytes(folder / "runs" / name / FINISHED)).get("images")
    except (OSError, ParseError):
        return None
    return images if isinstance(images, int) else None


def record_results(config: Config, name: RunName) -> None:
    """Write the digests of what a run exported. Raises SaveError."""
    run = run_folder(config, name)
    if files := list(_files(config, name)):
        digests = {_relative(path, run): file_digest(path) for path in files}
        write_file(run / SUMS, sums_text(digests).encode())


def check_results(config: Config, readers: Sequence[RunName]) -> None:
    """Check the networks that `readers` will read against the digests of the runs that wrote them.

    Runs of versions that recorded none are not checked. Raises TrainingError.
    """
    needed = {name for reader in readers for name in READS[reader]} - {*readers}
    for name in sorted(needed):
        run = run_folder(config, name)
        used = training_of(config, name) is not None and is_finished(config.folder, name)
        if not used or not (run / SUMS).exists():
            continue
        if reason := _difference(run):
            raise TrainingError(
                f"Stage {name} in {config.folder} is not as it was when its training finished: "
                f"{reason}. Restore it from a backup, delete {run} to train it again, or delete "
                f"{run / SUMS} to use it as it is."
            )


def _difference(run: Path) -> str:
    """The first file that is not as recorded; empty if all are."""
    try:
        for name, digest in read_sums(run).items():
            if file_digest(run / name) != digest:
                return f"the content of {run / name} changed (its SHA-256 is not the recorded one)"
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def _files(config: Config, name: RunName) -> Iterator[Path]:
    """The files that a finished run wrote and later ones read."""
    folder = run_folder(config, name) if name.endswith("-pretraining") else config.folder
    for component in EXPORTED[name]:
        found = component_in(folder, component)
        yield found.weights
        if found.config is not None:
            yield found.config
        if found.tokenizer is not None:
            yield from (path for path in found.tokenizer.iterdir() if path.is_file())


def _relative(path: Path, run: Path) -> str:
    return Path(os.path.relpath(path, run)).as_posix()
