"""Read what `wuerstchen distance` and `wuerstchen alignment` wrote, and compare what is alike."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from wuerstchen.errors import DataError
from wuerstchen.evaluation.alignment import comparison as of_alignments
from wuerstchen.evaluation.alignment.comparison import StoredAlignment
from wuerstchen.evaluation.distances import comparison as of_distances
from wuerstchen.evaluation.distances import published
from wuerstchen.evaluation.distances.comparison import StoredRecord
from wuerstchen.parsing import ParseError, parse_model, parse_object, read_bytes


def compare(paths: Sequence[Path], against: Sequence[published.Published]) -> Iterator[str]:
    """Results side by side, line by line, then the published figures that were chosen.

    Raises DataError for files that are none of ours, of different kinds, or measured in different
    ways.
    """
    records = {str(path): read_record(path) for path in paths}
    kinds = {record.kind: name for name, record in records.items()}
    if len(kinds) > 1:
        told = " and ".join(f"{kind} in {name}" for kind, name in kinds.items())
        raise DataError(f"Expected results of one kind to compare, found {told}.")
    of_distances.check_alike(records)
    distances = {name: each for name, each in records.items() if isinstance(each, StoredRecord)}
    alignments = {name: each for name, each in records.items() if isinstance(each, StoredAlignment)}
    if alignments:
        yield from of_alignments.lines(alignments)
        return
    yield from of_distances.lines(distances)
    yield from published.lines(list(against), next(iter(distances.values())).protocol)


def read_record(path: Path) -> StoredRecord | StoredAlignment:
    """Raises DataError for a file that is none of ours."""
    try:
        data = read_bytes(path)
        if parse_object(data).get("kind") == "alignment":
            return parse_model(StoredAlignment, data)
        return parse_model(StoredRecord, data)
    except (OSError, ParseError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{path}: expected a file that `wuerstchen distance` or `wuerstchen alignment` wrote, "
            f"but {reason}; name one, or measure again."
        ) from None
