"""Which component a config.json describes: in a folder, next to a file, or named by the caller."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wuerstchen.errors import ConfigError, ModelFolderError
from wuerstchen.weights.component_files import ComponentFiles
from wuerstchen.weights.files import read_json
from wuerstchen.weights.identify import V3_CLASSES, ForeignModelError
from wuerstchen.weights.layout import CONFIG, PLACES, ComponentName

CLASSES: dict[str, ComponentName] = {
    "PaellaVQModel": "stage_a",
    "WuerstchenDiffNeXt": "stage_b",
    "WuerstchenPrior": "stage_c",
    "WuerstchenStageB": "stage_b",
    "WuerstchenStageC": "stage_c",
    "Compressor": "compressor",
    "EfficientNetEncoder": "compressor",
}
TEXT_MODELS = ("clip_text_model", "clip")


def with_configs(
    components: dict[ComponentName, ComponentFiles], configs: Sequence[str | Path]
) -> dict[ComponentName, ComponentFiles]:
    """`components` with the config.json files that the caller named, each by its class.

    Raises ModelFolderError for a file that describes no network, ConfigError for one too many.
    """
    for path in map(Path, configs):
        name = class_in(path)
        if name is None:
            known = ", ".join(CLASSES)
            raise ModelFolderError(
                f"{path}: expected the {CONFIG} of a network, whose _class_name is one of {known}."
            )
        if name not in components:
            titles = ", ".join(PLACES[each].title for each in components) or "no component"
            raise ConfigError(
                f"{path} describes {PLACES[name].title}, but the model has {titles}; name the "
                "config of one of them."
            )
        components = {**components, name: replace(components[name], config=path)}
    return components


def class_in(config: Path) -> ComponentName | None:
    """The component that a config.json describes by its class."""
    values = read_json(config)
    if (class_name := values.get("_class_name")) in V3_CLASSES:
        raise ForeignModelError(config, f"a {class_name}", "v3")
    if values.get("model_type") in TEXT_MODELS:
        return "text_c"
    if isinstance(class_name, str) and class_name in CLASSES:
        return CLASSES[class_name]
    return "compressor" if {"c_latent", "effnet"} & values.keys() else None


def class_beside(config: Path) -> ComponentName | None:
    """The network that a file next to weights describes, which may be of something else."""
    if not config.is_file():
        return None
    try:
        name = class_in(config)
    except ModelFolderError:
        return None
    return None if name in ("text_b", "text_c") else name
