"""The records of the quality study, and their JSON file."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from benchmarks.records import Run
from wuerstchen.atomic_write import write_file


class Row(BaseModel):
    """The figures of one setting of a stage."""

    model_config = ConfigDict(frozen=True)
    stage: str
    """C, B, or whole."""
    name: str
    sampler: str
    spacing: str
    evaluations: int
    """Of the stage's network; of both stages together, of Stage C. Those without guidance count
    like those with it."""
    decoder: int | None = None
    """Of both stages together: evaluations of Stage B."""
    cost: float
    """Evaluations in units of guided ones: one without guidance costs half."""
    images: int
    distance: float | None
    """RMS distance to 500 steps from the same noise; None for stochastic samplers, whose
    images differ for every number of steps."""
    frechet: float
    """Distance of features to the test images."""
    frechet_spread: float
    """Standard deviation of it over resampled images."""
    nearest: float | None
    """Fraction of captions whose nearest training image shows the requested object."""
    first_five: float | None
    psnr: float | None
    """dB to the image whose semantics were given."""
    edges: float
    """Mean absolute difference between neighbouring pixels, relative to the test images."""
    seconds: float
    run: int | None = None
    """Index into the runs of the file; None: measured before the file kept them."""


class Rows(BaseModel):
    """The content of the file."""

    runs: list[Run] = []
    rows: list[Row]


def read(path: Path) -> Rows:
    """The file's content, or empty rows if there is no file."""
    return Rows.model_validate_json(path.read_bytes()) if path.is_file() else Rows(rows=[])


def write(path: Path, rows: Rows) -> None:
    write_file(path, (rows.model_dump_json(indent=1) + "\n").encode())
