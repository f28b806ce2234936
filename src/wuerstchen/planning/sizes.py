"""Sizes of the models that trainings start from: their files say them, and not the config."""

from pathlib import Path

from wuerstchen import weights
from wuerstchen.config import Config
from wuerstchen.weights import ComponentFiles, ComponentName, component_in
from wuerstchen.weights.hub import find, is_here


def sized(config: Config) -> Config:
    """`config` with the sizes of its starts, as far as these are on this machine.

    Reads their config.json alone. Raises ModelFolderError where a start lacks what is taken of it.
    """
    stage_a, stage_b, stage_c = config.stage_a, config.stage_b, config.stage_c
    changes: dict[str, object] = {}
    if (part := _part(stage_a.training.init_from, "stage_a")) is not None:
        changes["stage_a"] = stage_a.model_copy(update={"model": weights.stage_a.config(part)})
    if (part := _part(stage_b.training.init_from, "stage_b")) is not None:
        changes["stage_b"] = stage_b.model_copy(update={"model": weights.stage_b.config(part)})
    if (part := _part(stage_b.training.init_from, "compressor")) is not None:
        changes["compressor"] = weights.compressor.config(part)
    if (part := _part(stage_c.training.init_from, "stage_c")) is not None:
        changes["stage_c"] = stage_c.model_copy(update={"model": weights.stage_c.config(part)})
    return config.model_copy(update=changes)


def missing_starts(config: Config) -> list[str]:
    """For each start that is not on this machine, a sentence on what stands in for its sizes."""
    stages = (config.stage_a, config.stage_b, config.stage_c)
    return [
        f"Sizes: {start} is not on this machine; those of the config are taken for its own, which "
        "are the published ones where it sets none."
        for start in dict.fromkeys(stage.training.init_from for stage in stages)
        if start and not is_here(start)
    ]


def text_config(start: str, part: ComponentName) -> Path | None:
    """Where a start says the sizes of its text encoder; None where it is not on this machine."""
    return component_in(find(start), part).config if is_here(start) else None


def _part(start: str, part: ComponentName) -> ComponentFiles | None:
    if not start or not is_here(start):
        return None
    return component_in(find(start), part)
