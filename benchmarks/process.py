"""Measurements in processes of their own, and the memory of a process."""

import os
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
STATUS = Path("/proc/self/status")


def run_module(module: str, *arguments: str, seconds: float | None = None) -> str:
    """`python -m MODULE ...` in the project's root; the last line that it prints.

    Raises RuntimeError where it fails, with the end of its error output, or takes longer.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", module, *arguments],
            cwd=ROOT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{module} took more than {error.timeout:.0f} s") from None
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed: {done.stderr[-2000:]}")
    return (done.stdout.splitlines() or [""])[-1]


def memory_status() -> dict[str, int]:
    """Bytes of this process by Linux's names for them; nothing on other systems."""
    if not STATUS.is_file():
        return {}
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    named = (line.partition(":") for line in lines if line.endswith(" kB"))
    return {name: int(value.split()[0]) * 1024 for name, _, value in named}


def resident_peak() -> int:
    """Peak resident memory of this process in bytes.

    On Linux, `ru_maxrss` includes the peak of the parent process; VmHWM does not.
    """
    if "VmHWM" in (status := memory_status()):
        return status["VmHWM"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
