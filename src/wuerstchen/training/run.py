"""Train all stages into one model folder: Stage A, the compressor with Stage B, Stage C.

Each stage reads what earlier stages left in the folder. Finished stages are not trained again;
interrupted ones resume from their newest checkpoint.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from filelock import FileLock, Timeout

from wuerstchen import weights
from wuerstchen.atomic_write import explain_disk_errors
from wuerstchen.config import Config, TrainingConfig, dump
from wuerstchen.data import Pairs, open_pairs
from wuerstchen.errors import SaveError, TrainingError
from wuerstchen.locks import check_lock
from wuerstchen.noise import folded
from wuerstchen.receipts.phases import FINISHED
from wuerstchen.training.build import Files, build_stage
from wuerstchen.training.checkpoints import Checkpoints
from wuerstchen.training.distributed import is_main_process, rejoin_after_restart
from wuerstchen.training.loop import Loop
from wuerstchen.training.metering import complete_receipts, count_flops, measure_training
from wuerstchen.training.optim import autocast_dtype, emulates_bf16
from wuerstchen.training.origins import run_folder
from wuerstchen.training.output_folder import check_output, check_run, claim_output
from wuerstchen.training.preflight import check_batch, check_device, check_models, check_paths
from wuerstchen.training.results import (
    check_results,
    finished_images,
    is_finished,
    record_results,
)
from wuerstchen.training.resume_check import (
    DATA,
    changed_since_finished,
    check_same_data,
    check_unchanged,
    data_digest,
)
from wuerstchen.training.run_log import RunLog
from wuerstchen.training.stage import RUN_ORDER, RunName, section_of, training_of

StageName = Literal["a", "b", "c"]

log = logging.getLogger(__name__)


def train(
    config: Config,
    only: StageName | None = None,
    *,
    allow_changes: bool = False,
    overwrite: bool = False,
) -> Path:
    """Train every unfinished stage, or `only` one; returns the model folder.

    allow_changes  resume even if the config has changed
    overwrite      replace components in the model folder that were not trained there

    Raises DataError for unusable data; TrainingError if an earlier stage is missing or a later one
    would become stale, if another process trains in the same folder, if a loss diverges, or after
    Ctrl-C (everything is saved then); SaveError if the disk is full.
    """
    runs = _planned_runs(config, only)
    pending = [name for name in runs if not is_finished(config.folder, name)]
    for name in runs:
        if name not in pending:
            log.info("Stage %s %s", name, _why_finished(config, name))
            Checkpoints(run_folder(config, name), 1).clear()  # left by a kill at the end
            _warn_of_changes(config, name)
    if pending:
        _check_earlier_stages(config, pending[0])
        _check_later_stages(config, pending)
        if is_main_process():
            with explain_disk_errors(config.folder):
                check_output(config, pending, overwrite=overwrite)
        check_paths(config, pending)
        check_device()
        check_models(config, pending)
        check_results(config, pending)
        for name in () if allow_changes else pending:
            check_unchanged(run_folder(config, name), config, name[0])
        with _exclusive(config.folder):
            if is_main_process():
                claim_output(config, pending, overwrite=overwrite)
            train_pairs, test_pairs, report = open_pairs(config.data)
            digest = train_pairs.digest(dated=False)
            data_report = {**report.to_dict(), "digest": digest}
            for name in () if allow_changes else pending:
                check_same_data(run_folder(config, name), digest)
            _warn_of_other_data(config, set(runs) - set(pending), digest)
            for name in pending:
                _train_run(name, config, train_pairs, test_pairs, data_report)
    elif is_main_process():
        complete_receipts(config)
    return config.folder


def _planned_runs(config: Config, only: StageName | None) -> list[RunName]:
    """The requested runs in order; a finished stage needs no pretraining."""
    return [
        name
        for name in RUN_ORDER
        if (only is None or name[0] == only)
        and training_of(config, name) is not None
        and not (name.endswith("-pretraining") and is_finished(config.folder, name[0]))
    ]


def _train_run(
    name: RunName,
    config: Config,
    train_pairs: Pairs,
    test_pairs: Pairs,
    data_report: Mapping[str, object],
) -> None:
    training = training_of(config, name)
    assert training is not None, name
    # On the CPU, Accelerate starts a process group only if it is told to use the CPU.
    only_cpu = not torch.accelerator.is_available()
    rejoin_after_restart()
    accelerator = Accelerator(mixed_precision="no", cpu=only_cpu)
    check_batch(name, training, accelerator)
    if accelerator.is_main_process:
        _announce(name, training, accelerator.device)
        check_run(run_folder(config, name))
    run_log = RunLog(run_folder(config, name), writes=accelerator.is_main_process)
    set_seed(folded(config.seed))
    with measure_training(name, config, train_pairs, accelerator) as meter:
        with count_flops(meter, accelerator.num_processes):
            stage = build_stage(name, Files(config, train_pairs))
        loop = Loop(stage, train_pairs, test_pairs, run_log, accelerator, config.seed)
        meter.resume_from(loop.state.images)
        # Only after the checkpoint was loaded: if it does not fit, the old config explains why.
        run_log.write("config.yaml", dump(config))
        run_log.write(DATA, json.dumps(data_report, indent=2, ensure_ascii=False))
        loop.run(meter)
        finished = {"images": loop.state.images, "steps": loop.state.step}
        with loop.trained() as network:
            if accelerator.is_main_process:
                # Pretrained networks stay in the run folder: the model folder gets those of the
                # stage that is trained from them.
                pretrained = name.endswith("-pretraining")
                stage.export(network, run_log.folder if pretrained else config.folder)
                record_results(config, name)
                run_log.write(FINISHED, json.dumps(finished))
        accelerator.wait_for_everyone()
        loop.checkpoints.clear()
    accelerator.free_memory()


def _announce(name: RunName, training: TrainingConfig, device: torch.device) -> None:
    """Log the device, and a warning if it emulates bf16."""
    if training.images == 0:
        log.info("Stage %s is copied from %s unchanged.", name, training.init_from)
        return
    log.info("Stage %s trains on %s.", name, device)
    if autocast_dtype(training) is torch.bfloat16 and emulates_bf16(device):
        log.warning(
            "The config of stage %s asks for bf16, for which this processor has no instructions: "
            "it may take seven times as long as with %s.precision=fp32.",
            name,
            section_of(name),
        )


def _check_earlier_stages(config: Config, first: RunName) -> None:
    """The stages before `first` must have left their components in the model folder."""
    needed: dict[str, tuple[weights.ComponentName, ...]] = {
        "a": (),
        "b": ("stage_a",),
        "c": ("stage_a", "stage_b", "compressor"),
    }
    missing = [part for part in needed[first[0]] if not weights.has_component(config.folder, part)]
    if missing:
        raise TrainingError(
            f"Stage {first} needs {', '.join(missing)} in {config.folder}, found none; train the "
            "stages before it first (leave out --stage to train all in order)."
        )


def _check_later_stages(config: Config, pending: Sequence[RunName]) -> None:
    """Training a stage again must not leave finished ones that were trained with the old one."""
    first = pending[0]
    stale = [name for name in _later_runs(config, first) if is_finished(config.folder, name)]
    if stale and not (first == "b" and config.stage_b.training.freeze_compressor):
        raise TrainingError(
            f"Stage {first} would be trained again, but {', '.join(stale)} in {config.folder} used "
            f"the old one; delete {_run_folders(config, stale)} too, or choose another output "
            "folder."
        )


def _later_runs(config: Config, name: RunName) -> list[RunName]:
    """The configured runs that build on `name`."""
    later = RUN_ORDER[RUN_ORDER.index(name) + 1 :]
    return [run for run in later if training_of(config, run) is not None]


def _why_finished(config: Config, name: RunName) -> str:
    """The state of a finished run, and how to repeat it."""
    if finished_images(config.folder, name) == 0:
        return "was already copied, so there is nothing to train."
    done = [run for run in (name, *_later_runs(config, name)) if is_finished(config.folder, run)]
    return f"is already finished; delete {_run_folders(config, done)} to train it again."


def _warn_of_changes(config: Config, name: RunName) -> None:
    """Warn that a finished stage keeps its weights although its config changed."""
    run = run_folder(config, name)
    try:
        changed = changed_since_finished(run, config, name) if run.is_dir() else []
    except TrainingError as error:
        changed = [f"it cannot be compared ({error})"]
    if changed:
        message = "Stage %s is not trained again, though its config changed: %s."
        log.warning(message, name, "; ".join(changed))


def _warn_of_other_data(config: Config, finished: Iterable[RunName], digest: str) -> None:
    """Warn of finished stages that were trained on other images or captions."""
    for name in sorted(finished):
        with suppress(TrainingError):  # a damaged record stops no other stage
            if data_digest(run_folder(config, name)) not in ("", digest):
                message = "Stage %s is not trained again, though its images or captions changed."
                log.warning(message, name)


def _run_folders(config: Config, names: Iterable[RunName]) -> str:
    return " and ".join(str(run_folder(config, name)) for name in names)


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Lock a model folder: two trainings would overwrite each other's files."""
    with ExitStack() as stack:
        if is_main_process():
            with explain_disk_errors(folder):
                (folder / "runs").mkdir(parents=True, exist_ok=True)
            lock = folder / "runs" / "lock"
            check_lock(lock)
            try:
                stack.enter_context(FileLock(lock, blocking=False))
            except Timeout:
                raise TrainingError(
                    f"Another process is training in {folder}; wait for it, or choose another "
                    "folder with output=FOLDER."
                ) from None
            except (OSError, NotImplementedError) as error:
                raise SaveError(
                    f"{lock} could not be locked ({error}); choose a writable folder on a disk "
                    "that supports locks with output=FOLDER."
                ) from None
        yield
