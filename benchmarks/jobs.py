"""The settings of a section of measurements, and networks of all systems by name."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarks.networks import STAGES, NetworkCall, Sizes, network_call, single
from benchmarks.peers import PEERS, peer, peer_call
from benchmarks.records import Measured, Store

PEER_PARTS = ("unet", "vae")
DTYPES = ("bfloat16", "float32")
BATCHES = (1, 4)
MEASURED = ("images", "peers", "compiled-peers", "calls", "memory")
"""What is measured on an accelerator, in this order."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a section measures, and where its records go."""

    store: Store
    sizes: Sizes
    sides: tuple[int, ...]
    repeats: int
    resume: bool
    """Skip what the section's file already has."""
    parts: tuple[str, ...] = STAGES
    """Networks, ours and diffusers', whose calls are timed."""
    dtypes: tuple[str, ...] = DTYPES
    """Dtypes on an accelerator."""
    batches: tuple[int, ...] = BATCHES
    """Batch sizes on an accelerator."""
    measured: tuple[str, ...] = MEASURED
    """Of `MEASURED`."""
    ahead: int = 0
    """Processes that compile for an accelerator before it measures."""
    until: float = math.inf
    """When no further measurement starts, as `time.monotonic` tells it."""

    def done(self, kind: str, **fields: str | int) -> bool:
        """Whether a resumed run may skip this."""
        return self.resume and self.store.has(kind, **fields)

    def in_time(self, what: str) -> bool:
        """Whether this may start; prints where it may not."""
        if time.monotonic() < self.until:
            return True
        print(f"No time was left for {what}.", flush=True)
        return False

    def keep(self, record: Measured) -> None:
        """Store and print a record."""
        self.store.add(record)
        print(
            " ".join(str(value) for value in record.model_dump(exclude={"run"}).values()),
            flush=True,
        )


def build(
    system: str, part: str, sizes: Sizes, *, filled: bool = True, device: str = "cpu"
) -> nn.Module:
    """A network of any system, on a device, or on the meta device if not filled."""
    if system in PEERS:
        return peer(system, part, sizes, filled=filled, device=device)
    return single(system, part, sizes, filled=filled, device=device)


def any_call(
    system: str, part: str, network: nn.Module, sizes: Sizes, side: int, rows: int
) -> NetworkCall:
    """A network of any system with its inputs; call it in inference mode."""
    if system in PEERS:
        return peer_call(system, part, network, side, rows)
    return network_call(system, part, network, sizes, side, rows)


def rows_of(part: str, batch: int = 1) -> tuple[int, ...]:
    """Rows of the measured calls: Stage C with guidance and without."""
    if part == "stage_c":
        return (2 * batch, batch)
    return (2 * batch,) if part == "unet" else (batch,)


def parts_of(system: str) -> tuple[str, ...]:
    return PEER_PARTS if system in PEERS else STAGES


def dtype_of(name: str) -> torch.dtype:
    """float32 or bfloat16 by its name."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def folder_of(out: Path, section: str) -> Path:
    """The file of a section."""
    return out / f"{section}.json"
