"""Scan a folder or file for components, in every layout in which version 2 is kept.

a model folder       vqgan decoder prior_prior text_encoder tokenizer prior_text_encoder …
a decoder            vqgan decoder text_encoder tokenizer, as on the hub
a prior              prior text_encoder tokenizer, as on the hub
a component          a folder with config.json and weights, such as a prior without its text
files                one or several files of weights, identified by their keys
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from wuerstchen.errors import ModelFolderError
from wuerstchen.weights.component_files import ComponentFiles
from wuerstchen.weights.files import current_path, read_json
from wuerstchen.weights.folder import INDEX
from wuerstchen.weights.headers import read_header
from wuerstchen.weights.identify import V3_CLASSES, ForeignModelError, identify, refuse_foreign
from wuerstchen.weights.layout import CONFIG, FOLDERS, PLACES, ComponentName, has_vocabulary

Layout = Literal["model", "decoder", "prior", "component", "files"]

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
DECODER_CLASS = "WuerstchenDecoderPipeline"
STAGES: set[ComponentName] = {"stage_a", "stage_b", "stage_c"}
WEIGHT_FILES = ("*.safetensors", "*.pt", "*.pth", "*.ckpt")


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
    if (name := _described_by_config(path)) is not None:
        found = _in_folder(path, name, _tokenizer_of(path), variant)
        return Scan(path, "component", {name: found})
    layout, folders = _layout(path)
    components = {
        name: _in_folder(current_path(path / folder), name, path / tokenizer, variant)
        for name, folder, tokenizer in folders
        if current_path(path / folder).is_dir()
    }
    loose = {} if components.keys() >= STAGES else _loose_files(path)
    if loose.keys() - components.keys():
        return Scan(path, "files", loose | components)
    return Scan(path, layout, components)


def scan_component(path: Path, component: ComponentName) -> ComponentFiles:
    """`component` in any folder or file that contains it; else raises ModelFolderError."""
    if not path.exists():
        raise ModelFolderError(f"Expected {PLACES[component].title} at {path}, found no such path.")
    found = scan(path)
    if found.layout == "component" and component in ("text_b", "text_c"):
        # A text encoder on its own does not state its stage.
        [(name, files)] = found.components.items()
        if name in ("text_b", "text_c"):
            return replace(files, component=component)
    if component not in found.components:
        raise ModelFolderError(
            f"{path}: expected {PLACES[component].title}, found {found.titles}; name another path."
        )
    return found.components[component]


def _described_by_config(folder: Path) -> ComponentName | None:
    """The component that config.json describes; text encoders by the folder's name."""
    if not (folder / CONFIG).is_file():
        return None
    values = read_json(folder / CONFIG)
    if (class_name := values.get("_class_name")) in V3_CLASSES:
        raise ForeignModelError(folder / CONFIG, f"a {class_name}", "v3")
    if values.get("model_type") in TEXT_MODELS:
        return "text_b" if FOLDERS.get(folder.resolve().name) == "text_b" else "text_c"
    if isinstance(class_name, str) and class_name in CLASSES:
        return CLASSES[class_name]
    return "compressor" if {"c_latent", "effnet"} & values.keys() else None


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
                    raise ModelFolderError(
                        f"{path} has {PLACES[name].title} twice, in {loose[name].weights.name} "
                        f"and {file.name}; name one of the files."
                    )
                loose[name] = found
    return loose


def _layout(path: Path) -> tuple[Layout, list[tuple[ComponentName, str, str]]]:
    """The layout, and each component that it may contain, with its folder and tokenizer's."""
    places = [(name, place.folder, place.tokenizer) for name, place in PLACES.items()]
    if (path / "prior").is_dir() and not (path / "prior_prior").is_dir():
        return "prior", [("stage_c", "prior", ""), ("text_c", "text_encoder", "tokenizer")]
    prior = ("prior_prior", "prior_text_encoder")
    decoder = ("vqgan", "decoder", "text_encoder", "tokenizer")
    has_prior = any(current_path(path / folder).is_dir() for folder in prior)
    is_decoder = not has_prior and all((path / folder).is_dir() for folder in decoder)
    return "decoder" if is_decoder or _index_class(path) == DECODER_CLASS else "model", places


def _index_class(path: Path) -> object:
    return read_json(path / INDEX).get("_class_name") if (path / INDEX).is_file() else None


def _in_folder(
    folder: Path, component: ComponentName, tokenizer: Path, variant: str | None
) -> ComponentFiles:
    return ComponentFiles(
        component=component,
        weights=_weights(folder, component, variant),
        config=folder / CONFIG,
        tokenizer=current_path(tokenizer) if PLACES[component].tokenizer else None,
    )


def _weights(folder: Path, component: ComponentName, variant: str | None) -> Path:
    usual = PLACES[component].weights
    names = dict.fromkeys((usual, "diffusion_pytorch_model.safetensors", "model.safetensors"))
    stems = [name.removesuffix(".safetensors") for name in names]
    infix = f".{variant}" if variant else ""
    for stem in stems:
        if (path := folder / f"{stem}{infix}.safetensors").is_file():
            return path
        if (folder / f"{stem}.safetensors.index{infix}.json").is_file():
            raise ModelFolderError(
                f"{folder} has sharded weights, which cannot be opened; join them in one "
                f"{stem}{infix}.safetensors."
            )
    variants = [
        path.name.removesuffix(".safetensors").removeprefix(f"{stem}.")
        for stem in stems
        for path in sorted(folder.glob(f"{stem}.*.safetensors"))
    ]
    if variant and component != "compressor":
        plain = "the one without a variant" if (folder / usual).is_file() else ""
        known = ", ".join(filter(None, [plain, *variants])) or "none"
        raise ModelFolderError(
            f"{folder}: expected the variant {variant!r} ({stems[0]}{infix}.safetensors), found "
            f"{known}; choose a variant that all components have."
        )
    if variants:
        raise ModelFolderError(
            f"{folder}: expected {usual}, found only the variants {', '.join(variants)}; "
            f"pass variant={variants[0]!r} (--variant {variants[0]})."
        )
    if variant:  # the compressor is published separately, in one dtype
        return _weights(folder, component, None)
    return folder / usual


def _in_file(path: Path) -> dict[ComponentName, ComponentFiles]:
    found = identify(read_header(path))
    for network in found.values():
        refuse_foreign(network, path)
    return {
        name: ComponentFiles(component=name, weights=path, naming=each.naming, prefix=each.prefix)
        for name, each in found.items()
    }
