"""The images of the systems: folders of images, or models that generate them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from wuerstchen.data.file_kinds import IMAGE_SUFFIXES
from wuerstchen.data.images import MAX_PIXELS, open_image, resize_and_crop
from wuerstchen.data.natural_order import natural_key
from wuerstchen.data.prompts import Prompt
from wuerstchen.display import printable
from wuerstchen.errors import ConfigError, DataError, os_errors_as
from wuerstchen.evaluation.inputs import Draw

BATCH = 8


@dataclass(frozen=True, slots=True)
class Shown:
    """An image of a system."""

    image: Image.Image
    source: str
    """Name of the file, or the seed."""


def image_files(folder: Path) -> dict[str, Path]:
    """The images directly in a folder by names without suffix, 2 before 10; raises DataError."""
    with os_errors_as(DataError):
        files = [
            path
            for path in folder.iterdir()
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
        ]
    files.sort(key=lambda path: (natural_key(path.stem), path.name))
    found: dict[str, Path] = {}
    for path in files:
        if path.stem in found:
            raise DataError(
                f"{path}: expected one image of this name, found {found[path.stem].name} too; "
                "remove one of them."
            )
        found[path.stem] = path
    return found


def is_image_folder(source: str) -> bool:
    """Whether a source is a folder with images in it; else it names a model."""
    folder = Path(source)
    return folder.is_dir() and bool(image_files(folder))


def check_same_names(folders: Mapping[str, Mapping[str, Path]]) -> list[str]:
    """The names of the images, which must be the same in all folders; raises DataError."""
    (first, names), *others = folders.items()
    for other, found in others:
        if missing := sorted(set(names) ^ set(found)):
            where, lacking = (first, other) if missing[0] in names else (other, first)
            raise DataError(
                f"{other}: expected images of the same names as in {first}, found "
                f"{printable(missing[0])} only in {where}, and {len(missing)} such names in all; "
                f"add it to {lacking}, or remove it."
            )
    return list(names)


def prompts_of(names: Sequence[str], folders: Sequence[Path]) -> list[Prompt]:
    """The prompt of each image, from the .txt next to it in the first folder that has one.

    Raises DataError if no folder has one.
    """
    prompts = []
    for name in names:
        files = [folder / f"{name}.txt" for folder in folders]
        path = next((path for path in files if path.is_file()), None)
        if path is None:
            raise DataError(
                f"{files[0]}: expected the prompt of an image, found no file; add it, or pass "
                "--prompts with a prompt for each image, in the order of their names."
            )
        with os_errors_as(DataError):
            text = " ".join(path.read_text(encoding="utf-8", errors="replace").split())
        if not text:
            raise DataError(f"{path}: expected the prompt of an image, found nothing; add it.")
        prompts.append(Prompt(text))
    return prompts


def open_images(files: Sequence[Path]) -> Iterator[Shown]:
    """The images of files, upright RGB on white; raises DataError."""
    for path in files:
        with os_errors_as(DataError):
            data = path.read_bytes()
        try:
            yield Shown(open_image(data, MAX_PIXELS, "white").image, PurePosixPath(path).name)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None


def generate_images(draw: Draw, prompts: Sequence[str], seed: int) -> Iterator[Shown]:
    """An image of each prompt, with seeds from `seed` on."""
    for start in range(0, len(prompts), BATCH):
        images = draw(prompts[start : start + BATCH], seed + start)
        for index, image in enumerate(images):
            yield Shown(image.convert("RGB"), f"seed {seed + start + index}")


def fitted(image: Image.Image, size: int | None, expected: tuple[int, int] | None) -> Image.Image:
    """An image as raters see it, resized and cropped to a square if a size is given.

    expected  the size that the images of the other systems have

    Raises ConfigError for another size, which would tell the systems apart.
    """
    if size is not None:
        return resize_and_crop(image, size, size)
    if expected is not None and image.size != expected:
        raise ConfigError(
            f"Expected images of one size for each prompt, found {expected[0]} x {expected[1]} and "
            f"{image.width} x {image.height} pixels, by which raters could tell the systems "
            "apart; pass --size to resize and crop all of them."
        )
    return image
