"""The whole road: data, Stage A, compressor with Stage B, Stage C, into one model folder.

Each stage reads what the stages before it left in the folder. A stage that is finished is not
trained again; one that was interrupted goes on from its newest checkpoint.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
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
from wuerstchen.errors import TrainingError
from wuerstchen.training.build import build_stage, run_folder
from wuerstchen.training.checkpoints import Checkpoints
from wuerstchen.training.distributed import is_main_process, rejoin_after_restart
from wuerstchen.training.loop import Loop
from wuerstchen.training.metering import measure_training
from wuerstchen.training.optim import autocast_dtype, emulates_bf16
from wuerstchen.training.preflight import check_device, check_models, check_paths, check_share
from wuerstchen.training.resume_check import DATA, changed_keys, check_same_data, check_unchanged
from wuerstchen.training.run_log import RunLog
from wuerstchen.training.stage import RunName, section_of

StageName = Literal["a", "b", "c"]

_REHEARSALS: tuple[RunName, ...] = ("b-pretraining", "c-pretraining")

log = logging.getLogger(__name__)


def train(config: Config, only: StageName | None = None, *, allow_changes: bool = False) -> Path:
    """Train every stage that is not finished yet, or `only` one; returns the model folder.

    allow_changes  go on also where the config is not the one that a run was begun with

    Raises DataError for unusable data, TrainingError where an earlier stage is missing or a later
    one would be left behind, where another process trains in the same folder, where a loss runs
    away or where Ctrl-C was pressed (everything is saved then), SaveError when the disk is full.
    """
    steps = _steps(config, only)
    waiting = [name for name in steps if not is_finished(config.folder, name)]
    for name in steps:
        if name not in waiting:
            log.info("Stage %s %s", name, _standing(config, name))
            Checkpoints(run_folder(config, name), 1).clear()  # where a kill came before they went
            _mention_changes(config, name)
    if waiting:
        _check_order(config, waiting[0])
        _check_later(config, waiting)
        check_paths(config, waiting)
        check_device()
        check_models(config, waiting)
        for name in () if allow_changes else waiting:
            check_unchanged(run_folder(config, name), config, name[0])
        with _alone(config.folder):
            train_pairs, test_pairs, report = open_pairs(config.data)
            digest = train_pairs.digest(dated=False)
            facts = {**report.to_dict(), "digest": digest}
            for name in () if allow_changes else waiting:
                check_same_data(run_folder(config, name), digest)
            for name in waiting:
                _train_stage(name, config, train_pairs, test_pairs, facts)
    return config.folder


def _mention_changes(config: Config, name: RunName) -> None:
    """A finished stage stays as it is, whatever its config says now; let nobody think otherwise."""
    with suppress(TrainingError):  # a config that cannot be read any more is none to compare with
        if changed := changed_keys(run_folder(config, name), config, name[0]):
            log.warning(
                "Stage %s stays as it is, though its config changed: %s.", name, "; ".join(changed)
            )


def is_finished(folder: Path, name: RunName) -> bool:
    """Whether step `name` of this model folder was trained to its end."""
    return (folder / "runs" / name / "finished.json").is_file()


def _steps(config: Config, only: StageName | None) -> list[RunName]:
    """Everything that is to be done, in order."""
    stages: tuple[StageName, ...] = (only,) if only else ("a", "b", "c")
    steps: list[RunName] = []
    for stage in stages:
        if not is_finished(config.folder, stage):
            if stage == "b" and config.stage_b.pretraining is not None:
                steps.append("b-pretraining")
            if stage == "c" and config.stage_c.pretraining is not None:
                steps.append("c-pretraining")
        steps.append(stage)
    return steps


def _train_stage(
    name: RunName,
    config: Config,
    train_pairs: Pairs,
    test_pairs: Pairs,
    facts: Mapping[str, object],
) -> None:
    """facts: of the data, for the folder of the run"""
    recipe = _recipe(config, name)
    # Several processes without an accelerator find each other only when told that this is meant.
    only_cpu = not torch.accelerator.is_available()
    rejoin_after_restart()
    accelerator = Accelerator(mixed_precision="no", cpu=only_cpu)
    check_share(name, recipe, accelerator)
    if accelerator.is_main_process:
        _announce(name, recipe, accelerator.device)
    run_log = RunLog(run_folder(config, name), writes=accelerator.is_main_process)
    newest = Checkpoints(run_log.folder, recipe.keep_checkpoints).newest()
    seen = int(newest.facts["images"] or 0) if newest else 0
    set_seed(config.seed)
    with measure_training(name, config, train_pairs, seen, accelerator) as meter:
        with meter.count_flops():
            stage = build_stage(name, config, train_pairs)
        loop = Loop(stage, train_pairs, test_pairs, run_log, accelerator, config.seed)
        # After the checkpoint was read: one that does not fit says what the run was begun with.
        run_log.write("config.yaml", dump(config))
        run_log.write(DATA, json.dumps(facts, indent=2, ensure_ascii=False))
        loop.run(meter)
        finished = {"images": loop.images, "steps": stage.step}
        with loop.trained() as network:
            if accelerator.is_main_process:
                # A pretraining stays beside its log: the model folder will hold what its stage makes
                # of it.
                stage.export(network, run_log.folder if name in _REHEARSALS else config.folder)
                run_log.write("finished.json", json.dumps(finished))
        accelerator.wait_for_everyone()
        loop.checkpoints.clear()
    accelerator.free_memory()


def _announce(name: RunName, recipe: TrainingConfig, device: torch.device) -> None:
    """Say where a stage is trained, and what makes it slow there."""
    if recipe.images == 0:
        log.info("Stage %s is taken over from %s as it is.", name, recipe.init_from)
        return
    log.info("Stage %s trains on %s.", name, device)
    if autocast_dtype(recipe) is torch.bfloat16 and emulates_bf16(device):
        log.warning(
            "Stage %s computes in bf16, as its config says, for which this processor has no "
            "instructions: it may take seven times as long as with %s.precision=fp32.",
            name,
            section_of(name),
        )


def _recipe(config: Config, name: RunName) -> TrainingConfig:
    recipes: dict[RunName, TrainingConfig | None] = {
        "a": config.stage_a.training,
        "b-pretraining": config.stage_b.pretraining,
        "b": config.stage_b.training,
        "c-pretraining": config.stage_c.pretraining,
        "c": config.stage_c.training,
    }
    recipe = recipes[name]
    assert recipe is not None, name
    return recipe


def _check_order(config: Config, first: RunName) -> None:
    """The stages before `first` must have left their parts in the model folder."""
    needed: dict[RunName, tuple[weights.ComponentName, ...]] = {
        "a": (),
        "b-pretraining": ("stage_a",),
        "b": ("stage_a",),
        "c-pretraining": ("stage_a", "stage_b", "compressor"),
        "c": ("stage_a", "stage_b", "compressor"),
    }
    missing = [part for part in needed[first] if not weights.has_component(config.folder, part)]
    if missing:
        raise TrainingError(
            f"Stage {first} needs {', '.join(missing)} in {config.folder}, found nothing of that "
            "there; train the stages before it first (leave out --stage to train all in order)."
        )


def _check_later(config: Config, waiting: Sequence[RunName]) -> None:
    """A stage that is trained again must not leave finished ones behind that knew the old one."""
    stale = [name for name in _after(config, waiting[0]) if is_finished(config.folder, name)]
    if stale and not (waiting[0] == "b" and config.stage_b.training.freeze_compressor):
        folders = " and ".join(str(run_folder(config, name)) for name in stale)
        raise TrainingError(
            f"Stage {waiting[0]} would be trained anew, but {', '.join(stale)} in {config.folder} "
            f"learned with the old one; delete {folders} too, or choose another output folder."
        )


def _after(config: Config, name: RunName) -> list[RunName]:
    """The steps of the whole road that build on `name`."""
    everything: list[RunName] = ["a", "b-pretraining", "b", "c-pretraining", "c"]
    later = everything[everything.index(name) + 1 :]
    return [step for step in later if step in ("b", "c") or _pretrains(config, step)]


def _pretrains(config: Config, name: RunName) -> bool:
    section = config.stage_b if name == "b-pretraining" else config.stage_c
    return name in _REHEARSALS and section.pretraining is not None


def _standing(config: Config, name: RunName) -> str:
    """What became of a finished step, and how it is trained again."""
    finished = run_folder(config, name) / "finished.json"
    if json.loads(finished.read_text(encoding="utf-8") or "{}").get("images") == 0:
        return "was taken over already, there is nothing to train."
    done = [step for step in (name, *_after(config, name)) if is_finished(config.folder, step)]
    folders = " and ".join(str(run_folder(config, step)) for step in done)
    return f"is finished already; delete {folders} to train it again."


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One training per model folder: two would overwrite each other's files."""
    lock = FileLock(folder / "runs" / "lock", blocking=False)
    with ExitStack() as held:
        if is_main_process():
            with explain_disk_errors(folder):
                (folder / "runs").mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(lock)
            except Timeout:
                raise TrainingError(
                    f"Another process is training in {folder}; wait for it, or choose another "
                    "folder with output=FOLDER."
                ) from None
        yield
