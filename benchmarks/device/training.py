"""Images per second, utilisation and peak memory of training at the published size on a device.

    python -m benchmarks.device.training --out OUT           on the device, three to four minutes
    python -m benchmarks.device.training --out OUT --page    the table, on any machine

The real trainers take real steps: losses, bf16 autocast, gradient clipping, AdamW and EMA as in the
config. Only the content is random: weights, images, and the latents, semantics and text states,
which are read from files in the format of `wuerstchen encode`. Every case is a process of its own
and is saved when it ends. The page compares each with `wuerstchen plan` of the same micro-batch.
"""

import argparse
import tempfile
import time
from contextlib import closing
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.device.networks import CAPTION, random_stage
from benchmarks.device.training_page import Case, Measured, Training, write_page
from benchmarks.process import resident_peak, run_module
from benchmarks.records import this_run
from wuerstchen.atomic_write import write_file
from wuerstchen.data import Batch
from wuerstchen.training.optim import Optimizers
from wuerstchen.training.run_log import RunLog
from wuerstchen.training.stage import TrainState
from wuerstchen.training.train_step import TrainStep

CASES = (
    Case(config="paper-512", stage="c", micro=64, accumulation=4),
    Case(config="paper-1024", stage="b", micro=16, accumulation=2),
    Case(config="paper-512", stage="b", micro=16, accumulation=4),
    Case(config="paper-1024", stage="c", micro=128, accumulation=2),
)
"""With the micro-batches that `wuerstchen plan` has for an H100."""

WARM = 4
"""Steps before the timed ones; operations are counted in the first, the second and the fourth."""
TIMED = 3
SECONDS = 12.0
"""Timed steps go on for so long, up to the step in which operations are counted again."""
MOST = 7
LIMIT = 200
"""Seconds of a case."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.device.training")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder (default out)")
    parser.add_argument("--cases", help="such as paper-512-c,paper-1024-b (default all)")
    parser.add_argument("--deadline", type=float, default=240, help="seconds; later cases are left")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, on a CPU too")
    parser.add_argument("--page", action="store_true", help="only write the page")
    parser.add_argument("--case", help="measure one in this process: its JSON")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.case:
        print(measure(Case.model_validate_json(options.case), options.out).model_dump_json())
    elif options.page:
        print(write_page(options.out))
    else:
        names = options.cases.split(",") if options.cases else [case.name for case in CASES]
        measure_all([case for case in CASES if case.name in names], options)


def measure_all(cases: list[Case], options: argparse.Namespace) -> None:
    """Measure every case in a process of its own, and save after each."""
    start = time.monotonic()
    content = Training(run=this_run("tiny" if options.tiny else "published"))
    for case in cases:
        chosen = case if not options.tiny else _tiny(case)
        if time.monotonic() - start > options.deadline:
            content.failed[case.name] = "no time was left"
            continue
        words = ["--case", chosen.model_dump_json(), "--out", str(options.out.resolve())]
        before = time.monotonic()
        try:
            found = Measured.model_validate_json(
                run_module("benchmarks.device.training", *words, seconds=LIMIT)
            )
            content.cases.append(found)
            gib = f"{found.peak / 2**30:.1f} GiB"
            rate = found.flops / found.images * found.per_second / 1e12
            what = f"{found.per_second:.1f} images/s, {rate:.0f} TFLOP/s, {gib}"
            print(f"{case.name}: {what}, micro {found.micro}, error {found.error:.3g}", end=" ")
        except (RuntimeError, ValueError) as error:
            content.failed[case.name] = str(error).strip().splitlines()[-1]
            print(f"{case.name}: FAILED: {error}", end=" ")
        print(f"({time.monotonic() - before:.0f} s)", flush=True)
        write_file(options.out / "training.json", content.model_dump_json(indent=1).encode())


def measure(case: Case, out: Path) -> Measured:
    """Train in this process; also writes a profile of one step into `out`."""
    on_cuda = torch.cuda.is_available()
    device = torch.device("cuda" if on_cuda else "cpu")
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = case.load()
        stage = random_stage(case.stage, config, folder, device)
        accelerator = Accelerator(mixed_precision="no", cpu=not on_cuda)
        move(stage.frozen_networks(), device)
        with closing(RunLog(folder / "run", writes=True)) as run_log:
            optimizers = Optimizers(stage, accelerator)
            step = TrainStep(stage, optimizers, run_log, accelerator, config.seed)
            trainer = _Trainer(step, case, needs_images=stage.needs_images, side=config.data.size)
            for _ in range(WARM):
                trainer.advance()
            flops, seconds = step.flops, list[float]()
            while len(seconds) < TIMED or (sum(seconds) < SECONDS and len(seconds) < MOST):
                seconds.append(trainer.advance())
            peak = torch.cuda.max_memory_allocated() if on_cuda else resident_peak()
            reserved = torch.cuda.max_memory_reserved() if on_cuda else 0
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
            with profile(activities=activities) as seen:
                trainer.advance()
    by = "self_cuda_time_total" if on_cuda else "self_cpu_time_total"
    text = seen.key_averages().table(sort_by=by, row_limit=40)
    write_file(out / f"profile-{case.name}.txt", text.encode())
    return Measured(
        case=case,
        micro=case.micro * case.accumulation // step.accumulation,
        seconds=seconds,
        flops=flops,
        peak=peak,
        reserved=reserved,
        error=trainer.error,
    )


class _Trainer:
    """Steps on one batch."""

    def __init__(self, step: TrainStep, case: Case, *, needs_images: bool, side: int) -> None:
        self._step, self._state = step, TrainState(10_000, 0)
        count = case.micro * case.accumulation
        shape = (count, 3, side, side) if needs_images else (count, 0)
        images: Tensor = torch.rand(shape)
        keys = [str(index) for index in range(count)]
        self._batch = Batch(images, [CAPTION] * count, keys, list(range(count)))
        self.error = 0.0

    def advance(self) -> float:
        """One step; its seconds."""
        self._state.step += 1
        _wait()
        start = time.perf_counter()
        self.error = self._step.run(self._batch, self._state)["error"]
        _wait()
        self._state.images += len(self._batch)
        return time.perf_counter() - start


def move(networks: dict[str, nn.Module], device: torch.device) -> None:
    for network in networks.values():
        network.to(device)


def _tiny(case: Case) -> Case:
    return case.model_copy(update={"tiny": True, "micro": 2, "accumulation": 2})


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
