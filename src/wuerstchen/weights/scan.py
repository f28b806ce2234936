"""Scan a folder or file for components, in every layout in which version 2 is kept.

a model folder       vqgan decoder prior_prior text_encoder tokenizer prior_text_encoder …
a decoder            vqgan decoder text_encoder tokenizer, as on the hub
a prior              prior text_encoder tokenizer, as on the hub
both in one folder   vqgan decoder prior text_encoder tokenizer …
a component          a folder with config.json and weights, such as a prior without its text
files                one or several files of weights, identified by their keys
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from wuerstchen.errors import ModelFolderError
from wuerstchen.weights.class_of_config import class_beside, class_in
from wuerstchen.weights.component_files import ComponentFiles, component_in, has_component
from wuerstchen.weights.files import current_path, read_json
from wuerstchen.weights.folder import INDEX
from wuerstchen.weights.headers import read_header
from wuerstchen.weights.identify import V3_CLASSES, ForeignModelError, identify, refuse_foreign
from wuerstchen.weights.layout import CONFIG, FOLDERS, PLACES, ComponentName, has_vocabulary
from wuerstchen.weights.weight_files import PRIOR, WEIGHT_FILES, find_weights, prior_folder

Layout = Literal["model", "decoder", "prior", "both", "component", "files"]

DECODER_CLASS = "WuerstchenDecoderPipeline"
STAGES: set[ComponentName] = {"stage_a", "stage_b", "stage_c"}


@dataclass(frozen=True, slots=True)
class Scan:
    """The components found at a path."""

    path: Path
    layout: Layout
    components: dict[ComponentName, ComponentFiles]

    @property
    def titles(self) -> str:
        """Its components in a sentence."""
        return ", ".join(PLACES[name].title for name in self.components) or "no component"


def scan(path: Path, variant: str | None = None) -> Scan:
    """Find components by names, configs and keys; no weight is read.

    variant  the infix of the weight files, such as fp16: NAME.fp16.safetensors

    Raises ModelFolderError for other generations and where the variant is missing.
    """
    if path.is_file():
        return Scan(path, "files", _in_file(path))
    if _index_class(path) in V3_CLASSES:
        raise ForeignModelError(path, "a model", "v3")
    layout, folders = _layout(path)
    if not folders and (name := _described_by_config(path)) is not None:
        found = _in_folder(path, name, _tokenizer_of(path), variant)
        if found.missing() is None or not (loose := _loose_files(path)):
            return Scan(path, "component", {name: found})
        return Scan(path, "files", loose)
    components = {
        name: _in_folder(folder, name, tokenizer, variant) for name, folder, tokenizer in folders
    }
    if layout == "both":
        components = _with_shared_text(components)
    complete = {name: files for name, files in components.items() if files.missing() is None}
    loose = {} if complete.keys() >= STAGES else _loose_files(path)
    if loose.keys() - complete.keys():
        return Scan(path, "files", components | loose | complete)
    return Scan(path, layout, components)


def scan_component(path: Path, component: ComponentName) -> ComponentFiles:
    """`component` in any folder or file that contains it; else raises ModelFolderError."""
    if has_component(path, component):
        return component_in(path, component)
    if not path.exists():
        raise ModelFolderError(f"Expected {PLACES[component].title} at {path}, found no such path.")
    found = scan(path)
    if found.layout == "component" and component in ("text_b", "text_c"):
        # A text encoder on its own does not state its stage.
        [(name, files)] = found.components.items()
        if name in ("text_b", "text_c"):
            return replace(files, component=component)
    files_found = found.components.get(component)
    incomplete = files_found is None or files_found.missing() is not None
    if incomplete and found.layout == "model":
        return component_in(path, component)  # raises, and says how to train it
    if files_found is None:
        raise ModelFolderError(
            f"{path}: expected {PLACES[component].title}, found {found.titles}; name another path."
        )
    return files_found


def _described_by_config(folder: Path) -> ComponentName | None:
    """The component that config.json describes; text encoders by the folder's name."""
    if not (folder / CONFIG).is_file():
        return None
    name = class_in(folder / CONFIG)
    is_b = FOLDERS.get(folder.resolve().name) == "text_b"
    return "text_b" if name == "text_c" and is_b else name


def _tokenizer_of(folder: Path) -> Path:
    """The tokenizer's folder of the text encoder in `folder`: the same, or one next to it."""
    if has_vocabulary(folder):
        return folder
    name = FOLDERS.get(folder.resolve().name, "text_b")
    return folder.resolve().parent / (PLACES[name].tokenizer or "tokenizer")


def _loose_files(path: Path) -> dict[ComponentName, ComponentFiles]:
    """The components in files directly in a folder, which may have any names."""
    loose: dict[ComponentName, ComponentFiles] = {}
    for pattern in WEIGHT_FILES:
        for file in sorted(path.glob(pattern)):
            for name, found in _in_file(file).items():
                if name in loose:
                    raise _found_twice(path, name, loose[name].weights.name, file.name)
                loose[name] = found
    return loose


def _found_twice(path: Path, name: ComponentName, one: str, other: str) -> ModelFolderError:
    return ModelFolderError(
        f"{path} has {PLACES[name].title} twice, in {one} and {other}; name one of them, or move "
        "the other elsewhere."
    )


def _layout(path: Path) -> tuple[Layout, list[tuple[ComponentName, Path, Path]]]:
    """The layout, and each component whose folder exists, with its folder and tokenizer's."""
    folders: dict[ComponentName, tuple[Path, Path]] = {
        name: (current_path(path / place.folder), path / place.tokenizer)
        for name, place in PLACES.items()
        if current_path(path / place.folder).is_dir()
    }
    layout: Layout = "model"
    if (prior := prior_folder(path)) is not None:
        if "stage_c" in folders:
            raise _found_twice(path, "stage_c", folders["stage_c"][0].name, PRIOR)
        folders["stage_c"] = prior, path
        layout = "both" if folders.keys() & {"stage_a", "stage_b", "compressor"} else "prior"
        own_text = prior.parent / "text_encoder"
        if "text_c" not in folders and prior.parent != path and own_text.is_dir():
            folders["text_c"] = own_text, prior.parent / "tokenizer"
        if layout == "prior" and "text_c" not in folders and "text_b" in folders:
            folders["text_c"] = folders.pop("text_b")
    elif not folders.keys() & {"stage_c", "text_c"}:
        whole = {"stage_a", "stage_b", "text_b"} <= folders.keys()
        if whole and (path / PLACES["text_b"].tokenizer).is_dir():
            layout = "decoder"
    if layout == "model" and _index_class(path) == DECODER_CLASS:
        layout = "decoder"
    return layout, [(name, *folders[name]) for name in PLACES if name in folders]


def _with_shared_text(
    components: dict[ComponentName, ComponentFiles],
) -> dict[ComponentName, ComponentFiles]:
    """Decide by widths which stages read `text_encoder/` where decoder and prior share a folder.

    In both repositories of the hub the text encoder has that name.
    """
    text = components.get("text_b")
    if text is None or text.missing() or "text_c" in components:
        return components
    width = _number(text, "hidden_size")
    reads_c = width == _number(components["stage_c"], "c_cond")
    reads_b = "stage_b" in components and width == _number(components["stage_b"], "clip_embd")
    if not reads_c:
        return components
    shared = {**components, "text_c": replace(text, component="text_c")}
    return {name: files for name, files in shared.items() if name != "text_b" or reads_b}


def _number(files: ComponentFiles, key: str) -> object:
    if files.config is None or not files.config.is_file():
        return None
    values = read_json(files.config)
    nested = values.get("text_config")
    return (nested if isinstance(nested, dict) else values).get(key)


def _index_class(path: Path) -> object:
    return read_json(path / INDEX).get("_class_name") if (path / INDEX).is_file() else None


def _in_folder(
    folder: Path, component: ComponentName, tokenizer: Path, variant: str | None
) -> ComponentFiles:
    weights = find_weights(folder, component, variant)
    text = current_path(tokenizer) if PLACES[component].tokenizer else None
    if not weights.is_file() and text is None:  # one file of any name, such as the authors' own
        found = [file for each in WEIGHT_FILES for file in sorted(folder.glob(each))]
        if len(found) == 1 and (network := _in_file(found[0]).get(component)):
            own = folder / CONFIG
            return replace(network, config=own if own.is_file() else network.config)
    return ComponentFiles(
        component=component, weights=weights, config=folder / CONFIG, tokenizer=text
    )


def _in_file(path: Path) -> dict[ComponentName, ComponentFiles]:
    """The components in a file, with a config next to it: config.json, or of the file's name."""
    header = read_header(path)
    found = identify(header)
    for network in found.values():
        refuse_foreign(network, path)
    components = {
        name: ComponentFiles(component=name, weights=path, naming=each.naming, prefix=each.prefix)
        for name, each in found.items()
    }
    for config in (path.with_name(CONFIG), path.with_suffix(".json")):
        name = class_beside(config)
        if name in components and f"{PLACES[name].folder}/{CONFIG}" not in header.metadata:
            components[name] = replace(components[name], config=config)
    return components
