"""A folder of images with same-name .txt captions and, where present, same-name .json fields."""

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from wuerstchen.data.images import IMAGE_SUFFIXES, UNREAD_SUFFIXES
from wuerstchen.data.items import Item, Place, parse_record, split_of_folder
from wuerstchen.data.report import Reason


def read_folder(root: Path, files: Sequence[PurePosixPath]) -> list[Item]:
    """Items of the images and captions among `files` (relative to `root`).

    An image's key is its relative path. Images that differ in the suffix alone share captions.
    """
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    unread = [file for file in files if file.suffix.lower() in UNREAD_SUFFIXES]
    known = set(files)
    items = [_read_item(root, image, known) for image in images]
    items += [unread_item(root, image) for image in unread]
    return items + _orphans(root, files, {file.with_suffix("") for file in images + unread})


def unread_item(root: Path, image: PurePosixPath) -> Item:
    """An image, relative to `root`, in a format that is not read."""
    trouble: Reason = "image in a format that is not read"
    return Item(str(image), Place(root / image), trouble=trouble)


def _read_item(root: Path, image: PurePosixPath, known: set[PurePosixPath]) -> Item:
    item = Item(str(image), Place(root / image), split=split_of_folder(image))
    text, side = image.with_suffix(".txt"), image.with_suffix(".json")
    try:
        if text in known:
            item.add_caption_file(Place(root / text).read())
        if side in known:
            item.add_json(Place(root / side).read())
    except OSError:
        item.trouble = "file cannot be read"
    return item


def _orphans(root: Path, files: Iterable[PurePosixPath], stems: set[PurePosixPath]) -> list[Item]:
    """Captions whose image is missing. Other JSON files are none of our business."""
    lonely = [file for file in files if file.with_suffix("") not in stems]
    return [Item(str(file), captions=[]) for file in lonely if _holds_captions(root / file)]


def _holds_captions(path: Path) -> bool:
    if path.suffix != ".json":
        return path.suffix == ".txt"
    try:
        record = parse_record(Place(path).read())
    except OSError:
        return False
    return record is not None and any(name in record for name in ("caption", "captions"))
