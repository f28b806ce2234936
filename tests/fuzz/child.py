"""Run a parser over many inputs in a child process with limits of memory and of seconds.

A crash, a hang or a flood of memory ends the child alone; the input that it was at is then known.
"""

import json
import mmap
import os
import resource
import struct
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from wuerstchen.errors import WuerstchenError

MEMORY = 1 << 30
"""Bytes that a parser may touch in addition to what the process has."""
RESERVED = 8 << 30
"""Bytes of addresses in addition: allocators and threads reserve far more than they touch."""
SECONDS = 20.0
"""For one input; about a thousand times what it takes on a quiet machine."""

Parse = Callable[[bytes], object]


@dataclass(frozen=True)
class Outcome:
    """What came of all inputs."""

    cases: int = 0
    taken: int = 0
    """Inputs that were not refused: in a damaged file, what is left may be good."""
    faults: tuple[str, ...] = ()
    """Each kind of fault once, with the shortest input that shows it."""


def run(parse: Parse, inputs: SearchStrategy[bytes], cases: int, folder: Path) -> Outcome:
    """Parse inputs in a child.

    parse  raises WuerstchenError, or returns; anything else is a fault
    """
    last, report = folder / "last-input", folder / "report"
    beat = mmap.mmap(-1, 16)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            outcome = _parse_all(parse, inputs, cases, last, beat)
            report.write_text(json.dumps(asdict(outcome)))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return _watch(child, beat, last, report)


def _parse_all(
    parse: Parse, inputs: SearchStrategy[bytes], cases: int, last: Path, beat: mmap.mmap
) -> Outcome:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + RESERVED
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    found: dict[str, bytes] = {}
    texts: dict[str, str] = {}
    file = os.open(last, os.O_RDWR | os.O_CREAT)
    count = taken = 0
    most = _peak() + MEMORY

    @settings(
        max_examples=cases,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def each(data: bytes) -> None:
        nonlocal count, taken, most
        count += 1
        os.pwrite(file, data, 0)
        beat[:16] = struct.pack("<dq", time.monotonic(), len(data))
        try:
            try:
                parse(data)
                taken += 1
            except WuerstchenError:
                pass
            if (peak := _peak()) > most:
                most = peak + MEMORY
                raise MemoryError(f"{peak / 2**30:.1f} GiB")
        except BaseException as error:
            frames = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in frames if "wuerstchen" in frame.filename]
            place = own[-1] if own else frames[-1]
            name = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
            if name not in found or len(data) < len(found[name]):
                found[name] = data
                texts[name] = "".join(traceback.format_exception(error)[-6:])

    each()
    faults = (f"{name} with {found[name][:300]!r}\n{texts[name]}" for name in found)
    return Outcome(count, taken, tuple(faults))


def _peak() -> int:
    """The most bytes that this process has had in memory at a time."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def _watch(child: int, beat: mmap.mmap, last: Path, report: Path) -> Outcome:
    started = time.monotonic()
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        time.sleep(0.02)
        begun, _ = struct.unpack("<dq", beat[:16])
        if time.monotonic() - (begun or started + 60) > SECONDS:
            os.kill(child, 9)
            os.waitpid(child, 0)
            return Outcome(faults=(f"no end within {SECONDS} s with {_last(beat, last)!r}",))
    if not report.exists():
        return Outcome(faults=(f"the process died with {_last(beat, last)!r}",))
    return Outcome(**json.loads(report.read_text()))


def _last(beat: mmap.mmap, last: Path) -> bytes:
    _, size = struct.unpack("<dq", beat[:16])
    return last.read_bytes()[:size][:2000] if last.exists() else b""
