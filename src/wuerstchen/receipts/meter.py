"""Measures a phase of work and records it in the ledger of a folder.

with Meter(folder, stage="b", kind="training", devices=world, writes=is_first) as meter:
    for batch in batches:
        step(batch)
        meter.tick(images=len(batch), flops=flops_of_a_step)
    with meter.as_kind("validation"):
        validate()
"""

import logging
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from wuerstchen.errors import ConfigError, SaveError
from wuerstchen.hardware import WORLD_GRAMS, co2_kilograms, device_name
from wuerstchen.receipts.amounts import Amounts
from wuerstchen.receipts.carbon import WORLD, country_code, grams_per_kwh
from wuerstchen.receipts.energy import EnergyMeter, Reading, open_energy_meter
from wuerstchen.receipts.phase import End, Kind, Phase, code_digest, text_digest
from wuerstchen.receipts.phases import close_killed, close_phase, locked, save_open

SAVE_EVERY = 10.0
"""Seconds between saves of a running phase, which a kill may remove from the receipt."""

log = logging.getLogger(__name__)


@dataclass
class _Tally:
    """Totals of one kind of work in the running phase."""

    seconds: float = 0.0
    images: int = 0
    flops: float = 0.0
    kwh: float = 0.0
    kwh_measured: float = 0.0


class Meter:
    """A running phase. Only the process that writes measures; in others it does nothing.

    A ledger that cannot be written, or energy that cannot be measured, is logged once and never
    stops the work.
    """

    def __init__(
        self,
        folder: Path,
        *,
        stage: str,
        kind: Kind,
        devices: int = 1,
        writes: bool = True,
        resumed_at: int | None = None,
        country: str = WORLD,
        config: str = "",
        data: str = "",
    ) -> None:
        """
        folder      a model folder or a prepared set, for `runs/phases.jsonl`
        stage       name of the run folder; `data` for preparations, `model` for all stages
        devices     number of processes that work in parallel
        resumed_at  images of earlier phases of this stage and kind that this one resumes from, as
                    counted by `tick`: work beyond them is lost. None: work is never resumed
        country     three letters of ISO 3166, or `world`
        config      the config as text; only its digest is kept
        data        a digest of the data
        """
        self._folder, self._writes, self._kind = folder, writes, kind
        self._id = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:12]}"
        self._stage, self._devices, self._resumed_at = stage, devices, resumed_at
        self._config, self._data, self._country = text_digest(config), data, country
        self._tallies: defaultdict[Kind, _Tally] = defaultdict(_Tally)
        self._tally = self._tallies[kind]
        self._energy: EnergyMeter | None = None
        self._stack = ExitStack()
        self._warned = False
        self._saved: int | None = None

    def __enter__(self) -> Self:
        if not self._writes:
            return self
        self._country, self._grams = _known_country(self._country)
        with self._safely():
            close_killed(self._folder)
            self._stack.enter_context(locked(self._folder, self._id))
        self._device = device_name()
        self._energy = open_energy_meter(self._devices, self._grams)
        self._started = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._booked_at = self._saved_at = time.perf_counter()
        self._read = Reading()
        self._read = self._reading()
        self._save()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if self._energy is None:
            return
        self._book()
        message = f"{kind.__name__}: {error}".splitlines()[0] if kind else ""
        with self._safely():
            close_killed(self._folder)  # again, if the disk was full at the start
            phase = self._phase("done" if kind is None else "stopped", message[:300])
            close_phase(self._folder, phase)
        with self._safely():
            self._stack.close()
        with suppress(Exception):  # anything that a lost driver raises
            self._energy.close()

    def tick(self, images: int = 0, flops: float = 0.0) -> None:
        """Count `images` more images of all processes, and their operations."""
        if self._energy is None:
            return
        self._tally.images += images
        self._tally.flops += flops
        if time.perf_counter() - self._saved_at >= SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Save the phase, so that a later kill loses nothing of it."""
        if self._energy is not None:
            self._book()
            self._save()

    def resume_from(self, images: int) -> None:
        """Set `resumed_at`, where it is known only after the start."""
        self._resumed_at = images
        self.save()

    def mark_saved(self, images: int = 0) -> None:
        """Results of all images so far, and of `images` more, count however this phase ends."""
        tally = self._tallies[self._kind]
        tally.images += images
        if self._saved != tally.images:
            self._saved = tally.images
            self.save()

    @contextmanager
    def as_kind(self, kind: Kind) -> Iterator[None]:
        """Count the work in this block as another kind; blocks may be nested."""
        if self._energy is None:
            yield
            return
        before = self._tally
        self._book()
        self._tally = self._tallies[kind]
        try:
            yield
        finally:
            self._book()
            self._tally = before

    def _book(self) -> None:
        """Book time and energy since the last call to the current kind of work."""
        assert self._energy is not None
        now, read = time.perf_counter(), self._reading()
        self._tally.seconds += now - self._booked_at
        self._tally.kwh += max(0.0, read.kwh - self._read.kwh)  # counters may start again
        self._tally.kwh_measured += max(0.0, read.measured - self._read.measured)
        self._booked_at, self._read = now, read

    def _reading(self) -> Reading:
        assert self._energy is not None
        try:
            return self._energy.read()
        except Exception as error:  # anything that a lost driver raises
            self._warn(f"energy could not be read ({type(error).__name__}: {error})")
            return self._read

    def _save(self) -> None:
        self._saved_at = time.perf_counter()
        with self._safely():
            save_open(self._folder, self._phase("open", ""))

    def _phase(self, end: End, error: str) -> Phase:
        assert self._energy is not None
        return Phase(
            id=self._id,
            stage=self._stage,
            kind=self._kind,
            started=self._started,
            end=end,
            error=error,
            at=self._resumed_at,
            standing=self._saved,
            devices=self._devices,
            device=self._device,
            work={kind: self._amounts(tally) for kind, tally in self._tallies.items()},
            energy=self._energy.method,
            country=self._country,
            grams_per_kwh=self._grams,
            code=code_digest(),
            config=self._config,
            data=self._data,
        )

    def _amounts(self, tally: _Tally) -> Amounts:
        device_seconds, kg = tally.seconds * self._devices, co2_kilograms(tally.kwh, self._grams)
        return Amounts(device_seconds=device_seconds, kg=kg, **asdict(tally))

    @contextmanager
    def _safely(self) -> Iterator[None]:
        """Receipts never stop a training, even if the disk is full or read-only."""
        try:
            yield
        except (SaveError, OSError, NotImplementedError, ValidationError) as error:
            self._warn(str(error))

    def _warn(self, problem: str) -> None:
        if not self._warned:
            log.warning("The receipt of this work will be incomplete: %s", problem)
        self._warned = True


def _known_country(country: str) -> tuple[str, float]:
    """The country and its grams per kWh, or the world average if it is unknown."""
    try:
        return country_code(country), grams_per_kwh(country_code(country))
    except ConfigError as error:
        log.warning("%s The world average is used.", error)
        return WORLD, WORLD_GRAMS
