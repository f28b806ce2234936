"""The files around the components of a model folder: schedulers, model_index.json, README.md."""

from pathlib import Path

from wuerstchen.atomic_write import write_file
from wuerstchen.parsing import ParseError, parse_yaml, read_bytes
from wuerstchen.weights.component_files import component_in
from wuerstchen.weights.files import json_text, read_json, replacing, write_json
from wuerstchen.weights.headers import file_format, read_header
from wuerstchen.weights.layout import CONFIG, PLACES, REQUIRED
from wuerstchen.weights.names import DIFFUSERS_VERSION, NAMES, OWN_STAGE_B, OWN_STAGE_C

SCHEDULER = "DDPMWuerstchenScheduler"
INDEX = "model_index.json"
SCHEDULERS = ("scheduler", "prior_scheduler")
INDEX_FILES = (*SCHEDULERS, INDEX)
"""What `write_index` writes."""
# These classes cannot be reached as "diffusers" since they are deprecated: diffusers cannot even
# open what it saves under that name. It does find them by their modules.
MODULES = {
    "PaellaVQModel": "diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model",
    "WuerstchenDiffNeXt": "diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_diffnext",
    "WuerstchenPrior": "diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_prior",
    # diffusers reports these two as unknown.
    OWN_STAGE_B: "wuerstchen.models.stage_b",
    OWN_STAGE_C: "wuerstchen.models.stage_c",
}
NOT_STATED = "not stated"
CARD = 4 << 20
"""Bytes of the longest model card that is read."""


def write_index(folder: Path, *, overwrite: bool = True) -> None:
    """Write both schedulers and model_index.json, so that diffusers opens the folder.

    overwrite  False keeps those that are there

    Raises ModelFolderError where a component is missing.
    """
    for component in REQUIRED:
        component_in(folder, component)
    version = {"_diffusers_version": DIFFUSERS_VERSION}
    scheduler = {"_class_name": SCHEDULER, **version, "scaler": 1.0, "s": 0.008}
    places = [folder / name for name in SCHEDULERS]
    with replacing(*(each for each in places if overwrite or not each.exists())) as new:
        for place in new:
            write_json(place / "scheduler_config.json", scheduler)
    index = {"_class_name": "WuerstchenCombinedPipeline", **version, **_classes(folder)}
    if overwrite or not (folder / INDEX).exists():
        write_file(folder / INDEX, json_text(index).encode())


def front_matter(readme: Path) -> dict[str, object]:
    """The metadata of a model card; empty where there is none, since nothing depends on it."""
    try:
        return _front_matter(read_bytes(readme, CARD).decode("utf-8"))
    except (OSError, ValueError):
        return {}


def licence(path: Path) -> str:
    """The licence that a model's card, metadata or LICENSE states; nothing is guessed."""
    card: dict[str, object] = {}
    if path.is_dir():
        card = front_matter(path / "README.md")
        if "license" not in card and (path / "LICENSE").is_file():
            return "see its file LICENSE"
    elif file_format(path) == "safetensors":
        metadata = read_header(path).metadata
        if "modelspec.license" in metadata:
            return metadata["modelspec.license"]
        card = _front_matter(metadata.get("README.md", ""))
        if "license" not in card and "LICENSE" in metadata:
            return "see LICENSE in its metadata"
    return str(card.get("license") or NOT_STATED)


def _classes(folder: Path) -> dict[str, tuple[str, str]]:
    """The module and class of each component for model_index.json."""
    classes = dict.fromkeys(SCHEDULERS, ("diffusers", SCHEDULER))
    for component in REQUIRED:
        place = PLACES[component]
        if place.tokenizer:
            classes[place.folder] = ("transformers", "CLIPTextModel")
            classes[place.tokenizer] = ("transformers", "CLIPTokenizer")
        else:
            name = str(read_json(folder / place.folder / CONFIG).get("_class_name"))
            name = name if name in MODULES else NAMES[component].class_name
            classes[place.folder] = (MODULES[name], name)
    return classes


def _front_matter(text: str) -> dict[str, object]:
    start, _, rest = text.partition("---")
    header, closed, _ = rest.partition("\n---")
    if start.strip() or not closed:
        return {}
    try:
        values: object = parse_yaml(header)
    except ParseError:
        return {}
    return values if isinstance(values, dict) else {}
