"""Measures a training run for its receipt: time, operations and energy."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from wuerstchen.config import Config, dump
from wuerstchen.data import Pairs
from wuerstchen.data.sources import is_prepared
from wuerstchen.errors import SaveError
from wuerstchen.receipts import Meter, adopt_phases, update_receipts
from wuerstchen.training.counting import Counting
from wuerstchen.training.stage import RunName


@dataclass(frozen=True, slots=True)
class TrainingMeter:
    """Receives the work of the training loop."""

    meter: Meter
    processes: int

    def tick(self, images: int, flops: float) -> None:
        """Count a step: the images of all processes, and their operations."""
        self.meter.tick(images, flops)

    def flush(self) -> None:
        """Save the receipt, before a checkpoint is saved."""
        self.meter.save()

    @contextmanager
    def count_flops(self) -> Iterator[None]:
        """Count work outside of steps, such as generating class images, done by every process."""
        with Counting() as counting:
            yield
        self.meter.tick(0, counting.flops * self.processes)

    def validation(self) -> AbstractContextManager[None]:
        """Count the work in this block as validation."""
        return self.meter.as_kind("validation")


@contextmanager
def measure_training(
    name: RunName, config: Config, pairs: Pairs, resumed_at: int, accelerator: Accelerator
) -> Iterator[TrainingMeter]:
    """Measure a training run; its receipt is written even if the run fails.

    resumed_at  images already trained on when this process started
    """
    source = Path(config.data.path).expanduser()
    first = accelerator.is_main_process
    try:
        with Meter(
            config.folder,
            stage=name,
            kind="training",
            devices=accelerator.num_processes,
            writes=first,
            resumed_at=resumed_at,
            config=dump(config),
            data=pairs.digest(),
        ) as meter:
            yield TrainingMeter(meter, accelerator.num_processes)
    finally:
        if first:
            if is_prepared(source):
                with suppress(SaveError, OSError):  # already logged by the meter
                    adopt_phases(source, config.folder)
            update_receipts(config.folder)
