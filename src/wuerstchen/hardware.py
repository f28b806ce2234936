"""Accelerators and processors: rates, memory and power as published, and what this machine has."""

import difflib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

from wuerstchen.errors import ConfigError

if TYPE_CHECKING:  # plans and receipts are read without torch
    import torch

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


def shown_bytes(size: int) -> str:
    """`1.50 GiB`, or `512.00 MiB` for less."""
    return f"{size / GIB:,.2f} GiB" if size >= GIB else f"{size / MIB:,.2f} MiB"


def available_memory(device: "torch.device", root: Path = Path("/")) -> int | None:
    """Bytes that this process can still allocate on a device; None where that is unknown.

    On the CPU the least of what the machine, its control groups and the limit of the process
    (`ulimit -v`) leave; what can be evicted, such as cached files, is available.

    root  of the file system in which Linux shows them
    """
    if device.type == "cuda":
        import torch

        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type != "cpu":
        return None
    machine = _table(root / "proc/meminfo", 1024)
    if "MemAvailable" not in machine:
        return None
    swap = machine.get("SwapFree", 0)
    found = [machine["MemAvailable"] + swap]
    found += [left + swap for left in _left_in_groups(root)]
    if (address_space := _left_in_process(root)) is not None:
        found.append(address_space)
    return max(min(found), 0)


def _left_in_groups(root: Path) -> Iterator[int]:
    """What the control groups of this process leave, of version 2 or 1, outer ones included."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, entry = line.partition(":")
        kinds, _, place = entry.partition(":")
        if kinds and "memory" not in kinds.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("memory" if kinds else "")
        limit, used, file = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_{}_file")
            if kinds
            else ("memory.max", "memory.current", "{}_file")
        )
        inner = mount / place.strip("/")
        for group in (inner, *inner.parents):
            most, now = _text(group / limit).strip(), _text(group / used).strip()
            if most.isdecimal() and now.isdecimal():
                cached = _table(group / "memory.stat", 1)
                evictable = sum(cached.get(file.format(a), 0) for a in ("active", "inactive"))
                yield int(most) - int(now) + evictable
            if group == mount:
                break


def _left_in_process(root: Path) -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    pages = _text(root / "proc/self/statm").split()
    if most == resource.RLIM_INFINITY or not pages:
        return None
    return most - int(pages[0]) * resource.getpagesize()


def _table(path: Path, unit: int) -> dict[str, int]:
    """Lines of a name and a number, in bytes."""
    rows = [line.replace(":", " ").split() for line in _text(path).splitlines()]
    return {row[0]: int(row[1]) * unit for row in rows if len(row) > 1 and row[1].isdecimal()}


def _text(path: Path) -> str:
    """Of a file that another kernel may lack."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "processor"
