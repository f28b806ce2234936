"""How much electricity a phase uses: by codecarbon where it works, else by watts and seconds.

codecarbon is asked for its offline tracker alone, which makes no network call and writes no file.
It reads counters of graphics cards and, where the system lets it, of the processor. Memory, and
processors without readable counters (mostly in containers), it estimates itself. It takes no sample
within 0.05 s of its last one, so that a phase shorter than this may count as no energy. Nothing
that goes wrong here stops the work that is measured.
"""

import importlib
import logging
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from wuerstchen.hardware import WATTS_OF_A_CORE, watts_of
from wuerstchen.receipts.devices import card, local_devices, visible_cards

log = logging.getLogger(__name__)

EVERY = 15.0
"""Seconds between two readings of codecarbon's own thread."""

COUNTED = ("rapl", "power gadget", "windows emi", "applesilicon", "raspberry")
"""Words in codecarbon's description of a processor whose energy comes from a counter."""


@dataclass(frozen=True)
class Reading:
    """Kilowatt hours since the start, and how much of them counters measured."""

    kwh: float = 0.0
    measured: float = 0.0


class Gauge(Protocol):
    """Something that knows how much energy was used since it was opened."""

    words: str
    """How it knows, for people."""

    def read(self) -> Reading: ...

    def close(self) -> None: ...


def open_gauge(devices: int, grams: float) -> Gauge:
    """Begin to measure.

    devices  processes of the whole work; those of this machine are LOCAL_WORLD_SIZE where it is set
    grams    of CO2 for a kWh, so that codecarbon need not know where it is
    """
    try:
        return _Tracked(devices, local_devices(devices), grams)
    except ModuleNotFoundError:
        why = "codecarbon is not installed"
    except Exception as error:  # whatever hardware, drivers and permissions lead to
        why = f"codecarbon does not work here ({type(error).__name__}: {error})"
    gauge = _Guessed(devices, why)
    log.info("The energy of this work is %s.", gauge.words)
    return gauge


class _Guessed:
    """Full power for all the time: more than what is used, if it is wrong."""

    def __init__(self, devices: int, why: str) -> None:
        name, cores = card(), os.cpu_count() or 1
        if name is None:
            machines = devices / local_devices(devices)
            self._watts, of = cores * WATTS_OF_A_CORE * machines, f"{cores * machines:g} cores"
        else:
            self._watts, of = devices * watts_of(name), f"{devices} x {name}"
        self.words = f"estimated from {self._watts:g} W ({of}) and the time, as {why}"
        self._start = time.perf_counter()

    def read(self) -> Reading:
        return Reading((time.perf_counter() - self._start) * self._watts / 3.6e6)

    def close(self) -> None:
        pass


class _Totals(Protocol):
    """What codecarbon hands over, as far as it is used here; in kWh."""

    energy_consumed: float
    cpu_energy: float
    gpu_energy: float


class _Tracker(Protocol):
    def start(self) -> None: ...

    def flush(self) -> float | None: ...

    def stop(self) -> float | None: ...


class _Listener:
    """Where codecarbon puts its totals in place of a file: the shape of its `BaseOutput`."""

    def __init__(self) -> None:
        self.totals: _Totals | None = None

    def out(self, total: _Totals, delta: _Totals) -> None:
        del delta
        self.totals = total

    def live_out(self, total: _Totals, delta: _Totals) -> None:
        self.out(total, delta)

    def task_out(self, data: Sequence[object], experiment_name: str) -> None:
        pass

    def exit(self) -> None:
        pass


class _Tracked:
    """codecarbon's tracker of the whole machine. One serves one phase: it cannot be restarted."""

    def __init__(self, devices: int, local: int, grams: float) -> None:
        self._machines, self._heard = devices / local, _Listener()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its import and start, no concern of a training
            self._tracker = _start_tracker(self._heard, local, grams)
        hardware = _hardware(self._tracker)
        self._counts_cpu = any(word in hardware for word in COUNTED)
        self.read()
        if self._heard.totals is None:  # it swallows its own errors
            self.close()
            raise RuntimeError("its tracker did not start")
        self.words = "by codecarbon: " + "; ".join(
            [
                *(["graphics cards measured"] if card() is not None else []),
                "processor " + ("measured" if self._counts_cpu else "estimated from its load"),
                "memory estimated",
                *([f"one machine of {self._machines:g}"] if self._machines > 1 else []),
            ]
        )

    def read(self) -> Reading:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._tracker.flush()
        found = self._heard.totals
        if found is None:
            return Reading()
        measured = found.gpu_energy + (found.cpu_energy if self._counts_cpu else 0.0)
        return Reading(found.energy_consumed * self._machines, measured)

    def close(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._tracker.stop()


def _start_tracker(listener: _Listener, local: int, grams: float) -> _Tracker:
    """Every setting is given, so that none comes from a file or variable of the user's."""
    codecarbon = importlib.import_module("codecarbon")
    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)  # importing it sets another one
    tracker: _Tracker = codecarbon.OfflineEmissionsTracker(
        output_methods=[],
        output_handlers=[listener],
        emissions_endpoint=None,
        electricitymaps_api_token="",
        api_call_interval=-1,
        force_carbon_intensity_g_co2e_kwh=grams,
        country_iso_code="USA",  # it wants one, and leaves it unused where grams are given
        cloud_provider=None,
        cloud_region=None,
        tracking_mode="machine",
        measure_power_secs=EVERY,
        allow_multiple_runs=True,
        pue=1.0,
        gpu_ids=visible_cards(local),
        output_dir=".",
        log_level="critical",
    )
    tracker.start()
    return tracker


def _hardware(tracker: _Tracker) -> str:
    """codecarbon's words for the hardware that it reads; it has no public way to ask for them."""
    known = getattr(tracker, "_conf", None)
    hardware = known.get("hardware") if isinstance(known, dict) else None
    return " ".join(map(str, hardware or ())).lower()
