"""The energy that a phase uses: from codecarbon if it works, else estimated from power and time.

Only codecarbon's offline tracker is used, which makes no network calls and writes no files. It
reads the counters of GPUs and, where permitted, of the processor; it estimates memory, and
processors without readable counters (mostly in containers). It takes no sample within 0.05 s of its
last one, so a shorter phase may count as no energy. No failure here stops the measured work.
"""

import importlib
import logging
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from wuerstchen.hardware import (
    WATTS_OF_A_CORE,
    accelerator_name,
    local_devices,
    visible_devices,
    watts_of,
)

log = logging.getLogger(__name__)

EVERY = 15.0
"""Seconds between samples of codecarbon's own thread."""

COUNTED = ("rapl", "power gadget", "windows emi", "applesilicon", "raspberry")
"""Substrings in codecarbon's description of a processor whose energy comes from a counter."""


@dataclass(frozen=True)
class Reading:
    """Kilowatt hours since the start, in total and measured by counters."""

    kwh: float = 0.0
    measured: float = 0.0


class EnergyMeter(Protocol):
    """Measures the energy used since it was opened."""

    method: str
    """How the energy is determined, for people."""

    def read(self) -> Reading: ...

    def close(self) -> None: ...


def open_energy_meter(devices: int, grams: float) -> EnergyMeter:
    """Start to measure.

    devices  number of processes; LOCAL_WORLD_SIZE, if set, has those on this machine
    grams    of CO2 per kWh, so that codecarbon need not determine its location
    """
    try:
        return _CodecarbonMeter(devices, local_devices(devices), grams)
    except ModuleNotFoundError:
        reason = "codecarbon is not installed"
    except Exception as error:  # anything that hardware, drivers and permissions can raise
        reason = f"codecarbon does not work here ({type(error).__name__}: {error})"
    meter = _PowerEstimate(devices, reason)
    log.info("The energy of this work is %s.", meter.method)
    return meter


class _PowerEstimate:
    """Full power for the whole time: an upper bound."""

    def __init__(self, devices: int, reason: str) -> None:
        name, cores = accelerator_name(), os.cpu_count() or 1
        if name is None:
            machines = devices / local_devices(devices)
            self._watts, of = cores * WATTS_OF_A_CORE * machines, f"{cores * machines:g} cores"
        else:
            self._watts, of = devices * watts_of(name), f"{devices} x {name}"
        self.method = f"estimated from {self._watts:g} W ({of}) and the time, as {reason}"
        self._start = time.perf_counter()

    def read(self) -> Reading:
        return Reading((time.perf_counter() - self._start) * self._watts / 3.6e6)

    def close(self) -> None:
        pass


class _Totals(Protocol):
    """The fields of codecarbon's report that are used here, in kWh."""

    energy_consumed: float
    cpu_energy: float
    gpu_energy: float


class _Tracker(Protocol):
    def start(self) -> None: ...

    def flush(self) -> float | None: ...

    def stop(self) -> float | None: ...


class _Listener:
    """Receives codecarbon's totals instead of a file; implements its `BaseOutput`."""

    def __init__(self) -> None:
        self.totals: _Totals | None = None

    def out(self, total: _Totals, delta: _Totals) -> None:
        del delta
        self.totals = total

    live_out = out

    def task_out(self, data: Sequence[object], experiment_name: str) -> None:
        pass

    def exit(self) -> None:
        pass


class _CodecarbonMeter:
    """codecarbon's tracker of the whole machine, for one phase: it cannot be restarted."""

    def __init__(self, devices: int, local: int, grams: float) -> None:
        self._machines, self._listener = devices / local, _Listener()
        with warnings.catch_warnings(action="ignore"):  # of its import: irrelevant to a training
            self._tracker = _start_tracker(self._listener, local, grams)
        # There is no public API for codecarbon's description of the hardware that it reads.
        conf = getattr(self._tracker, "_conf", None)
        found = conf.get("hardware") if isinstance(conf, dict) else None
        hardware = " ".join(map(str, found or ())).lower()
        self._counts_cpu = any(text in hardware for text in COUNTED)
        self.read()
        if self._listener.totals is None:  # it swallows its own errors
            self.close()
            raise RuntimeError("its tracker did not start")
        self.method = "by codecarbon: " + "; ".join(
            [
                *(["graphics cards measured"] if accelerator_name() is not None else []),
                "processor " + ("measured" if self._counts_cpu else "estimated from its load"),
                "memory estimated",
                *([f"one machine of {self._machines:g}"] if self._machines > 1 else []),
            ]
        )

    def read(self) -> Reading:
        with warnings.catch_warnings(action="ignore"):
            self._tracker.flush()
        found = self._listener.totals
        if found is None:
            return Reading()
        measured = found.gpu_energy + (found.cpu_energy if self._counts_cpu else 0.0)
        return Reading(found.energy_consumed * self._machines, measured)

    def close(self) -> None:
        with warnings.catch_warnings(action="ignore"):
            self._tracker.stop()


def _start_tracker(listener: _Listener, local: int, grams: float) -> _Tracker:
    """All settings are passed, so that none comes from the user's files or environment."""
    codecarbon = importlib.import_module("codecarbon")
    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)  # its import changes the level
    tracker: _Tracker = codecarbon.OfflineEmissionsTracker(
        output_methods=[],
        output_handlers=[listener],
        emissions_endpoint=None,
        electricitymaps_api_token="",
        api_call_interval=-1,
        force_carbon_intensity_g_co2e_kwh=grams,
        country_iso_code="USA",  # required, but unused if grams are given
        cloud_provider=None,
        cloud_region=None,
        tracking_mode="machine",
        measure_power_secs=EVERY,
        allow_multiple_runs=True,
        pue=1.0,
        gpu_ids=visible_devices(local),
        output_dir=".",
        log_level="critical",
    )
    tracker.start()
    return tracker
