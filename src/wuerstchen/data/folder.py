"""A folder of pictures with same-name .txt captions and, where present, same-name .json fields."""

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from wuerstchen.data.images import PICTURE_SUFFIXES, UNREAD_SUFFIXES
from wuerstchen.data.items import Item, Place, parse_record, split_of_folder
from wuerstchen.data.report import Reason


def read_folder(root: Path, files: Sequence[PurePosixPath]) -> list[Item]:
    """Items of the pictures and captions among `files` (relative to `root`).

    A picture's key is its relative path. Pictures that differ in the suffix alone share captions.
    """
    pictures = [file for file in files if file.suffix.lower() in PICTURE_SUFFIXES]
    unread = [file for file in files if file.suffix.lower() in UNREAD_SUFFIXES]
    known = set(files)
    items = [_read_item(root, picture, known) for picture in pictures]
    items += [unread_item(root, picture) for picture in unread]
    return items + _orphans(root, files, {file.with_suffix("") for file in pictures + unread})


def unread_item(root: Path, picture: PurePosixPath) -> Item:
    """A picture, relative to `root`, in a format that is not read."""
    trouble: Reason = "picture in a format that is not read"
    return Item(str(picture), Place(root / picture), trouble=trouble)


def _read_item(root: Path, picture: PurePosixPath, known: set[PurePosixPath]) -> Item:
    item = Item(str(picture), Place(root / picture), split=split_of_folder(picture))
    text, side = picture.with_suffix(".txt"), picture.with_suffix(".json")
    try:
        if text in known:
            item.add_caption_file(Place(root / text).read())
        if side in known:
            item.add_json(Place(root / side).read())
    except OSError:
        item.trouble = "file cannot be read"
    return item


def _orphans(root: Path, files: Iterable[PurePosixPath], stems: set[PurePosixPath]) -> list[Item]:
    """Captions whose picture is missing. Other JSON files are none of our business."""
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
