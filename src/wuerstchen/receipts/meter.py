"""Measures one phase of work while it is done, and leaves it in the ledger of a folder.

with Meter(folder, stage="b", kind="training", devices=world, writes=is_first) as meter:
    for batch in batches:
        step(batch)
        meter.tick(images=len(batch), flops=flops_of_a_step)
    with meter.part("look"):
        look()
"""

import logging
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from wuerstchen.errors import ConfigError, SaveError
from wuerstchen.hardware import WORLD_GRAMS
from wuerstchen.receipts.amounts import Amounts
from wuerstchen.receipts.carbon import WORLD, country_code, grams_per_kwh
from wuerstchen.receipts.devices import device_name
from wuerstchen.receipts.energy import Gauge, Reading, open_gauge
from wuerstchen.receipts.hashes import code_digest, text_digest
from wuerstchen.receipts.phases import (
    End,
    Kind,
    Phase,
    close_killed,
    close_phase,
    held,
    keep_open,
)

KEEP_EVERY = 10.0
"""Seconds between two writings of an open phase: what a kill may cost of the receipt."""

log = logging.getLogger(__name__)


@dataclass
class _Tally:
    """Sums of one kind of work in the phase under way."""

    seconds: float = 0.0
    images: int = 0
    flops: float = 0.0
    kwh: float = 0.0
    measured: float = 0.0


class Meter:
    """A phase under way. Only the process that writes measures; with the others it does nothing.

    A ledger that cannot be written, or energy that cannot be measured, is said in the log once and
    never stops the work.
    """

    def __init__(
        self,
        folder: Path,
        *,
        stage: str,
        kind: Kind,
        devices: int = 1,
        writes: bool = True,
        at: int | None = None,
        country: str = WORLD,
        config: str = "",
        data: str = "",
    ) -> None:
        """
        folder   a model folder or a prepared set, in which `runs/phases.jsonl` lies
        stage    name of the run folder; `data` for preparations, `model` for what is about all
        devices  processes that work beside each other, this one included
        at       images that are done already where the work goes on from there, in the unit of
                 `tick`: what earlier phases of this stage and kind did beyond them is lost
        country  three letters of ISO 3166, or `world`
        config   the settings as text; only its digest is kept
        data     a digest of what is read
        """
        self._folder, self._writes, self._kind = folder, writes, kind
        self._id = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:12]}"
        self._stage, self._devices, self._at = stage, devices, at
        self._config, self._data, self._country = text_digest(config), data, country
        self._tallies: defaultdict[Kind, _Tally] = defaultdict(_Tally)
        self._now = self._tallies[kind]
        self._gauge: Gauge | None = None
        self._stack = ExitStack()
        self._troubled = False
        self._standing: int | None = None

    def __enter__(self) -> Self:
        if not self._writes:
            return self
        self._country, self._grams = _known(self._country)
        with self._safely():
            close_killed(self._folder)
            self._stack.enter_context(held(self._folder, self._id))
        self._device = device_name()
        self._gauge = open_gauge(self._devices, self._grams)
        self._started = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._settled = self._kept = time.perf_counter()
        self._read = Reading()
        self._read = self._reading()
        self._keep()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._gauge is None:
            return
        self._settle()
        words = f"{kind.__name__}: {error}".splitlines()[0] if kind else ""
        with self._safely():
            phase = self._phase("done" if kind is None else "stopped", words[:300])
            close_phase(self._folder, phase)
        with self._safely():
            self._stack.close()
        with suppress(Exception):  # whatever a driver that went away leads to
            self._gauge.close()

    def tick(self, images: int = 0, flops: float = 0.0) -> None:
        """Work went on: `images` more images, those of all processes, with so many operations."""
        if self._gauge is None:
            return
        self._now.images += images
        self._now.flops += flops
        if time.perf_counter() - self._kept >= KEEP_EVERY:
            self.keep()

    def keep(self) -> None:
        """Write down how the phase stands, so that a kill from here on costs nothing of it."""
        if self._gauge is not None:
            self._settle()
            self._keep()

    def stands(self) -> None:
        """What was ticked so far is on the disk, and counts however this phase ends."""
        self._standing = self._tallies[self._kind].images

    @contextmanager
    def part(self, kind: Kind) -> Iterator[None]:
        """What is done in here, and the ticks in it, are of another kind; parts may be nested."""
        if self._gauge is None:
            yield
            return
        before = self._now
        self._settle()
        self._now = self._tallies[kind]
        try:
            yield
        finally:
            self._settle()
            self._now = before

    def _settle(self) -> None:
        """Put time and energy since the last settling down to the work that was done in it."""
        assert self._gauge is not None
        now, read = time.perf_counter(), self._reading()
        self._now.seconds += now - self._settled
        self._now.kwh += read.kwh - self._read.kwh
        self._now.measured += read.measured - self._read.measured
        self._settled, self._read = now, read

    def _reading(self) -> Reading:
        assert self._gauge is not None
        try:
            return self._gauge.read()
        except Exception as error:  # whatever a driver that went away leads to
            self._say(f"energy could not be read ({type(error).__name__}: {error})")
            return self._read

    def _keep(self) -> None:
        self._kept = time.perf_counter()
        with self._safely():
            keep_open(self._folder, self._phase("open", ""))

    def _phase(self, end: End, error: str) -> Phase:
        assert self._gauge is not None
        return Phase(
            id=self._id,
            stage=self._stage,
            kind=self._kind,
            started=self._started,
            end=end,
            error=error,
            at=self._at,
            standing=self._standing,
            devices=self._devices,
            device=self._device,
            work={kind: self._amounts(tally) for kind, tally in self._tallies.items()},
            energy=self._gauge.words,
            country=self._country,
            grams_per_kwh=self._grams,
            code=code_digest(),
            config=self._config,
            data=self._data,
        )

    def _amounts(self, tally: _Tally) -> Amounts:
        return Amounts(
            seconds=tally.seconds,
            device_seconds=tally.seconds * self._devices,
            images=tally.images,
            flops=tally.flops,
            kwh=tally.kwh,
            kwh_measured=tally.measured,
            kg=tally.kwh * self._grams / 1000,
        )

    @contextmanager
    def _safely(self) -> Iterator[None]:
        """A disk that is full or may not be written ends no training on account of its receipt."""
        try:
            yield
        except (SaveError, OSError, NotImplementedError, ValidationError) as error:
            self._say(str(error))

    def _say(self, what: str) -> None:
        if not self._troubled:
            log.warning("The receipt of this work will be incomplete: %s", what)
        self._troubled = True


def _known(country: str) -> tuple[str, float]:
    """The country and its grams per kWh, or those of the world where it is not known."""
    try:
        return country_code(country), grams_per_kwh(country_code(country))
    except ConfigError as error:
        log.warning("%s The mean of the world is used.", error)
        return WORLD, WORLD_GRAMS
