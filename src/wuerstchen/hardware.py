"""Accelerators and processors: rates, memory and power as published, and what this machine has."""

import difflib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import final

from wuerstchen.errors import ConfigError

GIB, MIB = 2**30, 2**20


@final
@dataclass(frozen=True, kw_only=True)
class Device:
    """An accelerator. Rates are of dense matrices, without sparsity, with sums in fp32."""

    name: str
    board: str
    """Part of the name that its driver reports."""
    bf16: float
    """FLOP/s of matrix products and convolutions in bf16."""
    tf32: float
    """FLOP/s of convolutions in fp32, which torch runs in TF32 by default."""
    fp32: float
    """FLOP/s of matrix products in fp32, which torch does not run in TF32 by default."""
    memory: int
    """Bytes."""
    watts: float
    """Largest power of the board."""
    source: str


_TABLE = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
"""Rates in TFLOP/s, memory in GiB."""

_RATES = ("bf16", "tf32", "fp32")

DEVICES = tuple(
    Device(**row | {"memory": row["memory"] * GIB} | {rate: row[rate] * 1e12 for rate in _RATES})
    for row in _TABLE["devices"]
)

OTHER_BOARDS: dict[str, float] = {row["board"]: row["watts"] for row in _TABLE["other_boards"]}
"""Watts of boards that receipts know and plans do not."""

WATTS_OF_OTHERS = 300.0
"""Of an unknown accelerator: about the middle of the table."""

WATTS_OF_A_CORE = 5.0
"""A server processor of 64 cores takes 280 W."""

WORLD_GRAMS = 475.0
"""g CO2 per kWh, mean of all electricity: IEA, Global Energy and CO2 Status Report 2019. For plans
and for receipts that name no country. The authors of the paper used 370."""


def watts_of(name: str) -> float:
    """Board power of an accelerator by its name; the longest entry of the table that is in it."""
    watts = {device.board: device.watts for device in DEVICES} | OTHER_BOARDS
    found = [board for board in watts if board.lower() in name.lower()]
    return watts[max(found, key=len)] if found else WATTS_OF_OTHERS


def co2_kilograms(kwh: float, grams_per_kwh: float) -> float:
    return kwh * grams_per_kwh / 1000


def find_device(name: str) -> Device:
    """The accelerator of that name, case-insensitive; ConfigError for others."""
    known = {device.name.lower(): device for device in DEVICES}
    if (found := known.get(name.lower())) is not None:
        return found
    near = [word for word in known if name and name.lower() in word]
    near = near or difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"; did you mean {' or '.join(known[word].name for word in near)}?" if near else "."
    names = ", ".join(device.name for device in DEVICES)
    raise ConfigError(f"--device: expected one of {names}, found {name!r}{hint}")


def device_name() -> str:
    """The accelerator of this machine, or its processor with the number of cores."""
    return accelerator_name() or f"{_processor()}, {os.cpu_count()} cores"


def accelerator_name() -> str | None:
    """None where there is no accelerator, or the program has not loaded torch."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return str(torch.cuda.get_device_name())


def visible_devices(local: int) -> list[str]:
    """The accelerators that this process group uses, so that those of others do not count."""
    if accelerator_name() is None:
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return named.split(",")[:local] if named else [str(number) for number in range(local)]


def local_devices(devices: int) -> int:
    """Processes of this training on this machine; all of them where no launcher names a number."""
    named = os.environ.get("LOCAL_WORLD_SIZE", "")
    return min(devices, int(named)) if named.isdecimal() and int(named) else devices


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "processor"
