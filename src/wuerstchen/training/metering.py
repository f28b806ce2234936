"""Measures a training run for its receipt: time, operations and energy."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from accelerate import Accelerator

from wuerstchen.config import Config, dump
from wuerstchen.data import Pairs
from wuerstchen.data.sources import is_prepared
from wuerstchen.errors import WuerstchenError
from wuerstchen.flops import FlopCounter
from wuerstchen.receipts import Meter, adopt_phases, update_receipts
from wuerstchen.receipts.folder import has_unrecorded
from wuerstchen.receipts.phases import close_killed
from wuerstchen.training.stage import RunName


@contextmanager
def measure_training(
    name: RunName, config: Config, pairs: Pairs, accelerator: Accelerator
) -> Iterator[Meter]:
    """Measure a training run; its receipt is written even if the run fails."""
    try:
        with Meter(
            config.folder,
            stage=name,
            kind="training",
            devices=accelerator.num_processes,
            writes=accelerator.is_main_process,
            config=dump(config),
            data=pairs.digest(),
        ) as meter:
            yield meter
    finally:
        if accelerator.is_main_process:
            _write_receipts(config)


def complete_receipts(config: Config) -> None:
    """Write what a kill after the last step kept from the receipt of a finished model."""
    with suppress(WuerstchenError, OSError):
        if has_unrecorded(config.folder):
            close_killed(config.folder)
            _write_receipts(config)


def _write_receipts(config: Config) -> None:
    source = Path(config.data.path).expanduser()
    if is_prepared(source):
        with suppress(WuerstchenError, OSError):  # already logged by the meter
            adopt_phases(source, config.folder)
    update_receipts(config.folder)


@contextmanager
def count_flops(meter: Meter, processes: int) -> Iterator[None]:
    """Count work outside of steps, such as generating class images, done by every process."""
    with FlopCounter() as counter:
        yield
    meter.tick(0, counter.total * processes)
