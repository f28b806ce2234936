"""What computes: its name, how many of it are on this machine, and what it takes at most."""

import os
import sys
from pathlib import Path

WATTS = {
    "A100": 400.0,
    "A100-PCIE": 250.0,
    "A100 80GB PCIe": 300.0,
    "A10": 150.0,
    "H100": 700.0,
    "H200": 700.0,
    "L4": 72.0,
    "L40": 300.0,
    "T4": 70.0,
    "V100": 300.0,
    "RTX 3090": 350.0,
    "RTX 4090": 450.0,
}
"""Board power of accelerators by a word in their names, from their makers' data sheets."""

WATTS_OF_OTHERS = 300.0
"""Of an accelerator that is not in the table: about the middle of it."""

WATTS_OF_A_CORE = 5.0
"""A server's processor of 64 cores takes 280 W."""


def device_name() -> str:
    """What computes: the accelerator, or the processor with its cores."""
    return card() or f"{_processor()}, {os.cpu_count()} cores"


def watts_of(name: str) -> float:
    """Board power of an accelerator by its name; the longest word of the table that is in it."""
    found = [word for word in WATTS if word.lower() in name.lower()]
    return WATTS[max(found, key=len)] if found else WATTS_OF_OTHERS


def visible_cards(local: int) -> list[str]:
    """The cards that this work uses, so that those of others on the machine do not count."""
    if card() is None:
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return named.split(",")[:local] if named else [str(number) for number in range(local)]


def local_devices(devices: int) -> int:
    """Processes of this work on this machine; all of them where no launcher says otherwise."""
    said = os.environ.get("LOCAL_WORLD_SIZE", "")
    return min(devices, int(said)) if said.isdecimal() and int(said) else devices


def card() -> str | None:
    """Name of the accelerator; None where there is none, or a program that has not loaded torch."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return str(torch.cuda.get_device_name())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "processor"
