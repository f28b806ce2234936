"""Accelerators: peak rates, memory and power, as their makers state them."""

import difflib
import re
from dataclasses import dataclass

from wuerstchen.errors import ConfigError
from wuerstchen.hardware import BOARD_WATTS

GIB = 2**30
TERA = 1e12


@dataclass(frozen=True, kw_only=True)
class Device:
    """An accelerator. Rates are of dense matrices: no sparsity, sums in fp32."""

    name: str
    bf16: float
    """FLOP/s of matrix products and convolutions in bf16."""
    tf32: float
    """FLOP/s of convolutions in fp32, which torch lets run as TF32."""
    fp32: float
    """FLOP/s of matrix products in fp32, which torch does not."""
    memory: int
    """Bytes."""
    watts: float
    """Largest power of the board."""
    source: str


DEVICES = (
    Device(
        name="A100-40GB",
        bf16=312 * TERA,
        tf32=156 * TERA,
        fp32=19.5 * TERA,
        memory=40 * GIB,
        watts=BOARD_WATTS["A100-PCIE"],
        source="NVIDIA A100 datasheet, PCIe board of 40 GB",
    ),
    Device(
        name="A100-80GB",
        bf16=312 * TERA,
        tf32=156 * TERA,
        fp32=19.5 * TERA,
        memory=80 * GIB,
        watts=BOARD_WATTS["A100"],
        source="NVIDIA A100 datasheet, SXM board of 80 GB",
    ),
    Device(
        name="H100",
        bf16=989 * TERA,
        tf32=494 * TERA,
        fp32=67 * TERA,
        memory=80 * GIB,
        watts=BOARD_WATTS["H100"],
        source="NVIDIA H100 datasheet, SXM board",
    ),
    Device(
        name="H200",
        bf16=989 * TERA,
        tf32=494 * TERA,
        fp32=67 * TERA,
        memory=139 * GIB,
        watts=BOARD_WATTS["H200"],
        source="NVIDIA H200 datasheet, SXM board; memory as torch sees it",
    ),
    Device(
        name="L4",
        bf16=121 * TERA,
        tf32=60 * TERA,
        fp32=30.3 * TERA,
        memory=24 * GIB,
        watts=BOARD_WATTS["L4"],
        source="NVIDIA L4 datasheet, halved where it counts sparsity",
    ),
    Device(
        name="L40S",
        bf16=362 * TERA,
        tf32=183 * TERA,
        fp32=91.6 * TERA,
        memory=48 * GIB,
        watts=BOARD_WATTS["L40S"],
        source="NVIDIA L40S datasheet",
    ),
    Device(
        name="RTX-3090",
        bf16=71 * TERA,
        tf32=35.6 * TERA,
        fp32=35.6 * TERA,
        memory=24 * GIB,
        watts=BOARD_WATTS["RTX 3090"],
        source="NVIDIA GA102 whitepaper",
    ),
    Device(
        name="RTX-4090",
        bf16=165.2 * TERA,
        tf32=82.6 * TERA,
        fp32=82.6 * TERA,
        memory=24 * GIB,
        watts=BOARD_WATTS["RTX 4090"],
        source="NVIDIA Ada whitepaper",
    ),
)

UNITS = {"GiB": GIB, "MiB": 2**20, "GB": 10**9, "MB": 10**6}


def find_device(name: str) -> Device:
    """The accelerator of that name, in any case of its letters; ConfigError for others."""
    known = {device.name.lower(): device for device in DEVICES}
    if (found := known.get(name.lower())) is not None:
        return found
    near = [word for word in known if name and name.lower() in word]
    near = near or difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"; did you mean {' or '.join(known[word].name for word in near)}?" if near else "."
    names = ", ".join(device.name for device in DEVICES)
    raise ConfigError(f"--device: expected one of {names}, found {name!r}{hint}")


def parse_bytes(text: str) -> int:
    """`24GiB`, `80GB`, `512MiB` or `500MB` as bytes; ConfigError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(GiB|MiB|GB|MB)", text.strip())
    if match is None or float(match[1]) <= 0:
        raise ConfigError(
            "--device-memory: expected a number with GiB, MiB, GB or MB behind it such as 24GiB, "
            f"found {text!r}."
        )
    return int(float(match[1]) * UNITS[match[2]])


def shown_bytes(size: int) -> str:
    """`1.50 GiB`, or `512.00 MiB` for less."""
    return f"{size / GIB:,.2f} GiB" if size >= GIB else f"{size / UNITS['MiB']:,.2f} MiB"
