"""The whole road: data, Stage A, compressor with Stage B, Stage C, into one model folder.

Each stage reads what the stages before it left in the folder. A stage that is finished is not
trained again; one that was interrupted goes on from its newest checkpoint.
"""

import json
import logging
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed

from wuerstchen import weights
from wuerstchen.config import Config, TrainingConfig, dump
from wuerstchen.data import Pairs, Report, open_pairs
from wuerstchen.errors import TrainingError
from wuerstchen.models.text import TextEncoder, small_text_encoder
from wuerstchen.training.frozen import FrozenStages
from wuerstchen.training.loop import Loop
from wuerstchen.training.record import Record
from wuerstchen.training.rehearsal_b import CompressorRehearsal
from wuerstchen.training.rehearsal_c import TextRehearsal
from wuerstchen.training.stage import Stage
from wuerstchen.training.stage_a import StageATrainer
from wuerstchen.training.stage_b import StageBTrainer
from wuerstchen.training.stage_c import StageCTrainer

StageName = Literal["a", "b", "c"]

Step = Literal["a", "b-rehearsal", "b", "c-rehearsal", "c"]
"""What has a run folder of its own: the stages, and what B and C do first if so configured."""

log = logging.getLogger(__name__)


def train(config: Config, only: StageName | None = None) -> Path:
    """Train every stage that is not finished yet, or `only` one; returns the model folder.

    Raises DataError for unusable data, TrainingError where an earlier stage is missing, where a
    loss runs away or where Ctrl-C was pressed (everything is saved then), SaveError when the disk
    is full.
    """
    steps = _steps(config, only)
    waiting = [name for name in steps if not is_finished(config.folder, name)]
    for name in sorted(set(steps) - set(waiting)):
        folder = _run(config, name)
        log.info("Stage %s is finished already; delete %s to train it again.", name, folder)
    if waiting:
        _check_order(config, waiting[0])
        train_pairs, test_pairs, report = open_pairs(config.data)
        for name in waiting:
            _train_stage(name, config, train_pairs, test_pairs, report)
    return config.folder


def is_finished(folder: Path, name: Step) -> bool:
    """Whether step `name` of this model folder was trained to its end."""
    return (folder / "runs" / name / "finished.json").is_file()


def _steps(config: Config, only: StageName | None) -> list[Step]:
    """Everything that is to be done, in order."""
    stages: tuple[StageName, ...] = (only,) if only else ("a", "b", "c")
    steps: list[Step] = []
    for stage in stages:
        # Never after the stage is finished: it would replace what the stage was trained with.
        if not is_finished(config.folder, stage):
            if stage == "b" and config.stage_b.rehearsal is not None:
                steps.append("b-rehearsal")
            if stage == "c" and config.stage_c.rehearsal is not None:
                steps.append("c-rehearsal")
        steps.append(stage)
    return steps


def _train_stage(
    name: Step, config: Config, train_pairs: Pairs, test_pairs: Pairs, report: Report
) -> None:
    recipe = _recipes(config)[name]
    AcceleratorState._reset_state()  # it allows one precision per program; stages may differ
    # Several processes without an accelerator find each other only when told that this is meant.
    only_cpu = not torch.accelerator.is_available()
    accelerator = Accelerator(mixed_precision=_precision(recipe), cpu=only_cpu)
    _check_share(name, recipe, accelerator)
    record = Record(_run(config, name), writes=accelerator.is_main_process)
    record.write("config.yaml", dump(config))
    record.write("data.json", json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
    set_seed(config.seed)
    stage = _STAGES[name](config, train_pairs)
    loop = Loop(stage, train_pairs, test_pairs, record, accelerator, config.seed)
    loop.run()
    if accelerator.is_main_process:
        stage.export(loop.trained, config.folder)
        record.write("finished.json", json.dumps({"images": loop.images, "steps": stage.step}))
        record.clear_checkpoints()
    accelerator.wait_for_everyone()
    accelerator.free_memory()


def _stage_a(config: Config, train_pairs: Pairs) -> Stage:
    return StageATrainer(config.stage_a, train_pairs)


def _rehearsal(config: Config, train_pairs: Pairs) -> Stage:
    del train_pairs
    return CompressorRehearsal(config, weights.load_stage_a(config.folder))


def _stage_b(config: Config, train_pairs: Pairs) -> Stage:
    del train_pairs
    return StageBTrainer(config, weights.load_stage_a(config.folder), _text_of_stage_b(config))


def _text_rehearsal(config: Config, train_pairs: Pairs) -> Stage:
    captions = chain.from_iterable(pair.captions for pair in train_pairs)
    return TextRehearsal(config, _below(config), small_text_encoder(config.text, captions))


def _stage_c(config: Config, train_pairs: Pairs) -> Stage:
    if config.text.pretrained:
        text = _open_text(config.text.pretrained).requires_grad_(False)
    elif config.stage_c.training.start:
        text = weights.load_text_encoder(Path(config.stage_c.training.start), "c")
    elif config.stage_c.rehearsal is not None:
        text = weights.load_text_encoder(config.folder, "c")
    else:
        captions = chain.from_iterable(pair.captions for pair in train_pairs)
        text = small_text_encoder(config.text, captions)
    return StageCTrainer(config, _below(config), text)


def _below(config: Config) -> FrozenStages:
    folder = config.folder
    return FrozenStages(
        weights.load_stage_a(folder),
        weights.load_stage_b(folder),
        weights.load_compressor(folder),
        _text_of_stage_b(config),
        config.text.length,
        config.data.memory,
    )


_STAGES: Mapping[Step, Callable[[Config, Pairs], Stage]] = {
    "a": _stage_a,
    "b-rehearsal": _rehearsal,
    "b": _stage_b,
    "c-rehearsal": _text_rehearsal,
    "c": _stage_c,
}


def _text_of_stage_b(config: Config) -> TextEncoder | None:
    """The published encoder that Stage B reads, or None where it reads no text."""
    path = config.text.pretrained_b or config.text.pretrained
    return _open_text(path) if config.stage_b.training.text else None


def _open_text(folder: str) -> TextEncoder:
    """A published encoder: model and tokenizer in one folder."""
    return weights.open_text_encoder(Path(folder), Path(folder))


def _recipes(config: Config) -> dict[Step, TrainingConfig]:
    return {
        "a": config.stage_a.training,
        "b-rehearsal": config.stage_b.rehearsal or config.stage_b.training,
        "b": config.stage_b.training,
        "c-rehearsal": config.stage_c.rehearsal or config.stage_c.training,
        "c": config.stage_c.training,
    }


def _run(config: Config, name: Step) -> Path:
    return config.folder / "runs" / name


def _precision(recipe: TrainingConfig) -> str:
    """Accelerate's word for the precision: bf16 by itself only where an accelerator has it."""
    if recipe.precision == "auto":
        return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
    return "no" if recipe.precision == "fp32" else "bf16"


def _check_order(config: Config, first: Step) -> None:
    """The stages before `first` must have left their parts in the model folder."""
    needed: dict[Step, tuple[weights.Part, ...]] = {
        "a": (),
        "b-rehearsal": ("stage_a",),
        "b": ("stage_a",),
        "c-rehearsal": ("stage_a", "stage_b", "compressor"),
        "c": ("stage_a", "stage_b", "compressor"),
    }
    missing = [part for part in needed[first] if not weights.has_part(config.folder, part)]
    if missing:
        raise TrainingError(
            f"Stage {first} needs {', '.join(missing)} in {config.folder}, found nothing of that "
            "there; train the stages before it first (leave out --stage to train all in order)."
        )


def _check_share(name: Step, recipe: TrainingConfig, accelerator: Accelerator) -> None:
    parts = recipe.accumulate * accelerator.num_processes
    if recipe.batch % parts:
        raise TrainingError(
            f"The batch of stage {name} is {recipe.batch}, but processes ("
            f"{accelerator.num_processes}) and accumulate ({recipe.accumulate}) share it equally; "
            f"set it to a multiple of {parts}."
        )
