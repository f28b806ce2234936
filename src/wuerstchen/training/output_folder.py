"""The model folder as the output of a training: what a run may write there and replace.

Earlier versions made no marks (`wuerstchen.owned`). What they trained is known by their runs.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from wuerstchen import marks, overlap, owned
from wuerstchen.config import Config
from wuerstchen.errors import SaveError, TrainingError
from wuerstchen.receipts.phases import LEDGER, read_phases
from wuerstchen.training.origins import run_folder
from wuerstchen.training.stage import RUN_ORDER, RunName
from wuerstchen.weights.files import check_folder
from wuerstchen.weights.folder import INDEX_FILES
from wuerstchen.weights.layout import PLACES
from wuerstchen.weights.weight_files import check_not_twice

_OTHERS: dict[str, tuple[str, ...]] = {"c": (*INDEX_FILES, "wuerstchen.json")}
"""What a stage writes into the model folder besides its components and LoRAs."""

_LARGEST = 2**20
"""Bytes of a config that are read."""


def check_output(config: Config, pending: Sequence[RunName], *, overwrite: bool) -> None:
    """Refuse a model folder that is an input too, or that has what a run would replace.

    overwrite  whether components that were not trained there may be replaced

    Raises TrainingError and SaveError; nothing is written.
    """
    _check_inputs(config, pending)
    for name in pending:
        check_run(run_folder(config, name))
    earlier = _earlier_stages(config.folder)
    mark = marks.mark_of(config.folder)
    for stage in _exporting(pending):
        for component, place in PLACES.items():
            if place.trained_by == stage:
                check_not_twice(config.folder, component)
        for path in _outputs(config, stage):
            check_folder(path)
            if overwrite or stage in earlier:
                continue
            for file in _files(path):
                if mark is None or not mark.wrote(file):
                    raise SaveError(
                        f"Stage {stage} would replace {file}, which was not trained in "
                        f"{config.folder} or was changed afterwards; choose another folder with "
                        "output=FOLDER, or pass --overwrite."
                    )


def claim_output(config: Config, pending: Sequence[RunName], *, overwrite: bool) -> None:
    """Mark the model folder after `check_output`. Raises SaveError."""
    folder, earlier = config.folder, _earlier_stages(config.folder)
    adopted = [*_exporting(pending), *earlier] if overwrite else sorted(earlier)
    mark = marks.make_mark(folder, "model")
    for stage in adopted:
        for path in _outputs(config, stage):
            mark.adopt(_files(path))


def check_run(run: Path) -> None:
    """Raise SaveError if the folder of a run has something else in it."""
    owned.check_state(run, "a run", lambda run: _is_run(run) or _was_not_begun(run))


def _check_inputs(config: Config, pending: Sequence[RunName]) -> None:
    """Raise TrainingError if the model folder is read too."""
    inputs = {
        "stage_a.training.init_from": config.stage_a.training.init_from,
        "stage_b.training.init_from": config.stage_b.training.init_from,
        "stage_c.training.init_from": config.stage_c.training.init_from,
        "text.pretrained": config.text.pretrained,
        "text.pretrained_b": config.text.pretrained_b,
        "data.latent_cache": config.data.latent_cache,
    }
    overlap.check_apart(inputs, config.folder, error=TrainingError)
    images = Path(config.data.path).expanduser()
    # The other way round, the model folder is left out of the images.
    if config.data.path and images.exists() and overlap.is_within(images, config.folder):
        raise TrainingError(
            f"{config.folder}: expected a model folder that does not contain data.path {images}, "
            "which is an input; set output or data.path to another folder."
        )
    files = {
        "stage_a.training.vgg16_weights": config.stage_a.training.vgg16_weights,
        "stage_b.training.compressor_weights": config.stage_b.training.compressor_weights,
    }
    for stage in _exporting(pending):
        for path in _outputs(config, stage):
            overlap.check_apart(files, path, error=TrainingError)


def _exporting(runs: Sequence[RunName]) -> list[str]:
    """The stages that write into the model folder; pretrainings do not."""
    return [name for name in runs if not name.endswith("-pretraining")]


def _outputs(config: Config, stage: str) -> Iterator[Path]:
    """The files and folders in the model folder that a stage replaces."""
    for component, place in PLACES.items():
        # Without an encoder of its own, Stage B gets a copy of Stage C's.
        if place.trained_by == stage or (component == "text_b" and stage == "c"):
            yield config.folder / place.folder
            if place.tokenizer:
                yield config.folder / place.tokenizer
    yield from (config.folder / name for name in _OTHERS.get(stage, ()))
    tuned = {"b": config.stage_b.training.lora, "c": config.stage_c.training.lora}
    if (settings := tuned.get(stage)) is not None:
        networks = [f"stage_{stage}"]
        if stage == "c" and settings.train_text_encoder:
            networks.append("text_c")
        lora, name = config.folder / "lora", "-".join(networks)
        yield from (lora / f"{name}.safetensors", lora / f"{name}-diffusers.safetensors")
        for network in networks:
            for file in ("adapter_config.json", "adapter_model.safetensors"):
                yield lora / f"{network}-peft" / file


def _files(path: Path) -> list[Path]:
    """What is at a path: the files of a folder, or the file; a link counts as a file."""
    if path.is_dir() and not path.is_symlink():
        return sorted(path.iterdir())
    return [path] if path.exists() or path.is_symlink() else []


def _earlier_stages(folder: Path) -> set[str]:
    """The stages that an earlier version trained there."""
    if marks.mark_of(folder) is not None:
        return set()
    runs: set[str] = {name for name in RUN_ORDER if _is_run(folder / "runs" / name)}
    for phase in read_phases(folder) if (folder / LEDGER).is_file() else ():
        if phase.kind == "training" and not phase.origin:
            runs.add(phase.stage)
    return runs & {"a", "b", "c"}


def _is_run(run: Path) -> bool:
    """Whether a folder is that of a run: it has a config."""
    path = run / "config.yaml"
    if not path.is_file() or path.is_symlink():
        return False
    with path.open("rb") as file:
        text = file.read(_LARGEST)
    return all(f"\n{section}:".encode() in b"\n" + text for section in ("data", "stage_a"))


def _was_not_begun(run: Path) -> bool:
    """Whether a kill left only the temporary file of a config."""
    return all(path.name.startswith(".config.yaml.") for path in run.iterdir())
