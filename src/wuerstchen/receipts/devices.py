"""What computes: its name, and how many of it are on this machine."""

import os
import sys
from pathlib import Path


def device_name() -> str:
    """What computes: the accelerator, or the processor with its cores."""
    return card() or f"{_processor()}, {os.cpu_count()} cores"


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
