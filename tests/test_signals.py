"""Signals end a process at once where it has nothing to save, whatever it computes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from wuerstchen.signals import ending_at_once

LONG = """
import torch
from wuerstchen.signals import ending_at_once, ending_signals
matrix = torch.rand(3000, 3000, dtype=torch.float64)
with ending_signals(), ending_at_once():
    print("ready", flush=True)
    torch.linalg.eigvals(matrix)  # one operation of a minute
    print("finished", flush=True)
"""
SHORT = """
import time
from wuerstchen.signals import ending_at_once, ending_signals
with ending_signals(), ending_at_once():
    try:
        print("ready", flush=True)
        while True:
            time.sleep(0.01)
    finally:
        print("cleaned up", flush=True)
"""


def ended(script: str, number: signal.Signals) -> tuple[int, str, str]:
    """Exit code, output and errors of a process that gets a signal while it computes."""
    command = [sys.executable, "-c", script]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            time.sleep(0.3)
            process.send_signal(number)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_does_not_wait_for_an_operation(number: signal.Signals) -> None:
    code, out, err = ended(LONG, number)
    assert (code, out) == (128 + number, "")
    assert err.strip() == f"Ended by {number.name}."


def test_a_process_between_operations_cleans_up() -> None:
    code, out, err = ended(SHORT, signal.SIGTERM)
    assert code != 0 and out == "cleaned up\n"
    assert err.count("Ended by SIGTERM.") == 1


def test_nothing_is_left_after_the_block() -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        with ending_at_once():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1.2)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]
    assert signal.set_wakeup_fd(-1) == -1
