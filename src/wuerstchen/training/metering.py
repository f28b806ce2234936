"""The receipt of a training: time, operations, energy and money, written down while it works."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from wuerstchen.config import Config, dump
from wuerstchen.data import Pairs
from wuerstchen.data.sources import is_prepared
from wuerstchen.errors import SaveError
from wuerstchen.receipts import Meter, adopt, keep_receipts
from wuerstchen.training.counting import Counting
from wuerstchen.training.stage import RunName


@dataclass(frozen=True, slots=True)
class TrainingMeter:
    """What the loop tells of its work."""

    meter: Meter
    processes: int

    def tick(self, images: int, flops: float) -> None:
        """A step over so many images of all processes is done, with so many operations."""
        self.meter.tick(images, flops)

    def flush(self) -> None:
        """What a checkpoint is about to hold is in the receipt from here on."""
        self.meter.keep()

    @contextmanager
    def count_flops(self) -> Iterator[None]:
        """Work that is no step, such as what a base draws of a class: each process does all."""
        with Counting() as counting:
            yield
        self.meter.tick(0, counting.flops * self.processes)

    def validation(self) -> AbstractContextManager[None]:
        """Work that is a look and no training."""
        return self.meter.part("look")


@contextmanager
def measure_training(
    name: RunName, config: Config, pairs: Pairs, at: int, accelerator: Accelerator
) -> Iterator[TrainingMeter]:
    """Measure a step of the road; its receipt is written also where the step fails.

    at  images that an earlier process has seen, from where this one goes on
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
            at=at,
            config=dump(config),
            data=pairs.digest(),
        ) as meter:
            yield TrainingMeter(meter, accelerator.num_processes)
    finally:
        if first:
            if is_prepared(source):
                with suppress(SaveError, OSError):  # said once already, by the meter
                    adopt(source, config.folder)
            keep_receipts(config.folder)
