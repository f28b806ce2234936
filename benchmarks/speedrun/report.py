"""report.json: settings, machine, stages, cost and scores of one run; written after every part."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, computed_field

from benchmarks.records import Run
from benchmarks.speedrun.classes import CLASSES, ClassName
from wuerstchen.atomic_write import write_file
from wuerstchen.errors import DataError
from wuerstchen.parsing import ParseError, parse_model, read_bytes
from wuerstchen.receipts import Receipt

JSON, PAGE = "report.json", "report.html"


class Settings(BaseModel):
    """What determines a run; one that is resumed must have the same."""

    model_config = ConfigDict(frozen=True)
    of: ClassName
    """Name of the class."""
    changed: list[str]
    """Settings that differ from those of the class."""
    stickers: int
    """Training stickers."""
    scenes: int
    seconds: tuple[float, float, float]
    limit: float
    compiled: bool
    config: dict[str, JsonValue]


class Attempt(BaseModel):
    """One start of the command: the first, or a resumption."""

    run: Run
    seconds: float
    """From the start of its process to its last save."""


class StageResult(BaseModel):
    """What a stage took."""

    steps: int
    images: int
    seconds: float
    """Of training; encoding before it is not included."""
    flops: float
    """Operations of all steps; 0 if the run was too short to count them."""
    loss: float
    """Of the last step."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def flops_per_second(self) -> float:
        return self.flops / self.seconds


class Reconstruction(BaseModel):
    """Of held-out scenes."""

    stage_a_psnr: float
    """In dB: Stage A alone."""
    stage_b_psnr: float
    """In dB: Stages B and A, from true semantics."""
    stage_b_edges: float
    """Differences between neighbouring pixels, relative to those of the scenes."""


class Cost(BaseModel):
    """Of all attempts, from the receipt in the model folder."""

    seconds: float
    kwh: float
    kwh_measured: float
    """The part of `kwh` that counters measured."""
    kg: float
    """Of CO2."""
    energy: list[str]
    """How the energy was determined."""


class Report(BaseModel):
    """The content of the file."""

    settings: Settings
    attempts: list[Attempt]
    products: dict[str, float] = {}
    """FLOP/s of large matrix products on this machine, by type."""
    stages: dict[str, StageResult] = {}
    reconstruction: Reconstruction | None = None
    cost: Cost | None = None
    judged: int = 0
    """Images of each set of prompts that were asked for, if there was time; 0: no scores."""
    scores: dict[str, JsonValue] | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def seconds(self) -> float:
        """From the start of the process until the scores are written, of all attempts."""
        return sum(each.seconds for each in self.attempts)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def in_time(self) -> bool:
        """Whether it finished within the limit."""
        return self.scores is not None and self.seconds <= self.settings.limit

    @computed_field  # type: ignore[prop-decorator]
    @property
    def no_record(self) -> list[str]:
        """Why it is none; a changed seed is no reason."""
        settings, usual = self.settings, CLASSES[self.settings.of].judged
        reasons = [each for each in settings.changed if each.partition("=")[0] != "seed"]
        if self.scores is None:
            reasons.append("no scores")
        elif self.judged < usual:
            reasons.append(f"judged={self.judged}")
        if self.seconds > settings.limit:
            reasons.append(f"{self.seconds:,.0f} s, beyond the limit")
        return reasons

    def save(self, out: Path) -> None:
        """Raises SaveError."""
        write_file(out / JSON, (self.model_dump_json(indent=1) + "\n").encode())


def open_report(out: Path, settings: Settings) -> Report:
    """That of an interrupted run in the folder, or a new one.

    Raises DataError if the folder has a run with other settings, or a file that is none.
    """
    path = out / JSON
    if not path.is_file():
        return Report(settings=settings, attempts=[])
    try:
        report = parse_model(Report, read_bytes(path))
    except (OSError, ParseError) as error:
        raise DataError(
            f"{path}: expected the report of a speedrun, found something else ({error}); name a "
            "new folder."
        ) from None
    if report.settings != settings:
        old, new = report.settings.model_dump(), settings.model_dump()
        differing = ", ".join(key for key in new if old[key] != new[key])
        raise DataError(
            f"{out}: expected a new folder, or a run with these settings to resume, found a run "
            f"that differs in {differing}; name another folder."
        )
    return report


def cost_of(receipt: Receipt) -> Cost:
    """The sum of a receipt."""
    total = receipt.total
    return Cost(
        seconds=total.seconds,
        kwh=total.kwh,
        kwh_measured=total.kwh_measured,
        kg=total.kg,
        energy=sorted({phase.energy for phase in receipt.phases}),
    )
