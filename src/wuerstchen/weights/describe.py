"""Describe a file or folder by its headers and configs: format, generation, sizes, what fits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import CLIPTextConfig

from wuerstchen.config import CompressorModel, StageAModel, StageBModel, StageCModel
from wuerstchen.errors import ModelFolderError, os_errors_as
from wuerstchen.weights.class_of_config import with_configs
from wuerstchen.weights.component import check_blocks
from wuerstchen.weights.component_files import ComponentFiles
from wuerstchen.weights.components import COMPONENTS, block_count
from wuerstchen.weights.folder import licence
from wuerstchen.weights.headers import Header, TensorInfo, read_header
from wuerstchen.weights.identify import (
    GENERATIONS,
    NEEDS,
    ForeignModelError,
    Generation,
    Identified,
    identify,
)
from wuerstchen.weights.layout import PLACES, REQUIRED, ComponentName
from wuerstchen.weights.left_out import left_out, listed
from wuerstchen.weights.names import text_names
from wuerstchen.weights.scan import scan

STATISTICS = ("running_mean", "running_var", "num_batches_tracked", "position_ids")
"""Suffixes of tensors that are not parameters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComponentReport:
    """One network."""

    title: str
    path: str
    generation: str
    naming: str
    parameters: int
    size: int
    """Bytes of its tensors."""
    dtypes: tuple[str, ...]
    sizes: dict[str, object] = field(default_factory=dict)
    """Width, depth and so on, by our names; empty for generations that cannot be opened."""
    fits: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Everything known about a path."""

    path: str
    what: str
    generation: str
    licence: str
    size: int
    """Bytes on disk."""
    components: tuple[ComponentReport, ...] = ()
    note: str = ""


@os_errors_as(ModelFolderError)
def describe(path: Path, variant: str | None = None, configs: Sequence[str | Path] = ()) -> Report:
    """Describe a file or folder without reading a weight.

    configs  config.json files of networks in single files, as of `resolve`

    Models of versions 1 and 3 are described as far as keys and configs go. Raises ModelFolderError
    where no component is found.
    """
    if path.is_file():
        header = read_header(path)
        found = identify(header)
        if found and any(network.generation != "v2" for network in found.values()):
            return _foreign_file(header, found)
    try:
        scanned = scan(path, variant)
    except ForeignModelError as error:
        return _report(path, error.title, error.generation, f"{NEEDS[error.generation]}.")
    files = {name: scanned.components[name] for name in PLACES if name in scanned.components}
    if not files:
        raise ModelFolderError(
            f"{path}: expected a model, a component of one or a LoRA, found no file with their "
            "keys; name the folder or file with the weights."
        )
    files = with_configs(files, configs)
    reports = tuple(map(_component, files.values()))
    notes = [_missing(files)]
    if others := left_out(path, files):
        notes.append(f"Also there, not part of it: {listed(others)}.")
    note = " ".join(filter(None, notes))
    return _report(path, _what(scanned.layout, list(files)), "v2", note, reports)


def dtypes_of(stored: Mapping[str, TensorInfo]) -> tuple[str, ...]:
    """The floating-point dtypes among tensors."""
    dtypes = {info.dtype for info in stored.values() if info.dtype.is_floating_point}
    return tuple(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))


def size_of(stored: Mapping[str, TensorInfo]) -> int:
    """Bytes of tensors."""
    return sum(info.count * info.dtype.itemsize for info in stored.values())


def _what(layout: str, components: list[ComponentName]) -> str:
    titles = " and ".join(PLACES[name].title for name in components)
    if set(REQUIRED) <= set(components):
        return "a whole model"
    if layout in ("decoder", "prior"):
        return f"a {layout} ({titles})"
    is_text = layout == "component" and components[0] in ("text_b", "text_c")
    return "a text encoder" if is_text else titles


def _missing(components: Mapping[ComponentName, ComponentFiles]) -> str:
    """A note on missing files, which the title does not show."""
    paths = [str(path) for each in components.values() if (path := each.missing())]
    return f"Incomplete: {', '.join(paths)} is missing; copy it again." if paths else ""


def _component(files: ComponentFiles) -> ComponentReport:
    sizes, fits = _sizes(files)
    stored = read_header(files.weights).below(files.prefix)
    if files.config is not None:  # otherwise sizes follow from the tensors
        check_blocks(files, block_count(COMPONENTS[files.component].config(files)), stored)
    naming = "diffusers" if files.naming == "published" else "the authors"
    if files.component in ("text_b", "text_c"):
        naming = "transformers"
    return _network(files.weights, files.component, "v2", naming, stored, sizes, fits)


def _foreign_file(header: Header, found: dict[ComponentName, Identified]) -> Report:
    reports = tuple(
        _network(header.path, each.component, each.generation, each.naming, each.tensors, {}, "")
        for each in found.values()
    )
    generation = next(each.generation for each in found.values() if each.generation != "v2")
    what = " and ".join(report.title for report in reports)
    return _report(header.path, what, generation, f"{NEEDS[generation]}.", reports)


def _report(
    path: Path,
    what: str,
    generation: Generation,
    note: str,
    reports: tuple[ComponentReport, ...] = (),
) -> Report:
    return Report(
        path=str(path),
        what=what,
        generation=GENERATIONS[generation],
        licence=licence(path),
        size=_disk_size(path),
        components=reports,
        note=note,
    )


def _network(
    path: Path,
    component: ComponentName,
    generation: Generation,
    naming: str,
    stored: Mapping[str, TensorInfo],
    sizes: dict[str, object],
    fits: str,
) -> ComponentReport:
    if component in ("text_b", "text_c"):
        stored = {key: stored[key] for key in text_names(stored)}
    parameters = {key: info for key, info in stored.items() if not key.endswith(STATISTICS)}
    return ComponentReport(
        title=PLACES[component].title,
        path=str(path),
        generation=GENERATIONS[generation],
        naming=naming,
        parameters=sum(info.count for info in parameters.values()),
        size=size_of(stored),
        dtypes=dtypes_of(stored),
        sizes=sizes,
        fits=fits,
    )


def _sizes(files: ComponentFiles) -> tuple[dict[str, object], str]:
    """The sizes of a component, and a phrase on which others fit it."""
    config = COMPONENTS[files.component].config(files)
    if isinstance(config, CLIPTextConfig):
        sizes: dict[str, object] = {
            "width": config.hidden_size,
            "depth": config.num_hidden_layers,
            "heads": config.num_attention_heads,
            "vocabulary": config.vocab_size,
            "length": config.max_position_embeddings,
        }
        return sizes, f"a stage that reads text of width {config.hidden_size}"
    assert isinstance(config, StageAModel | StageBModel | StageCModel | CompressorModel)
    if isinstance(config, StageAModel):
        fits = f"latents of {config.latent_channels} channels"
    elif isinstance(config, CompressorModel):
        fits = f"Stages B and C for semantics of {config.channels} channels"
    else:
        others = "Stage C and compressor" if isinstance(config, StageBModel) else "Stage B"
        fits = (
            f"{others} for semantics of {config.semantic_channels} channels; text encoder of "
            f"width {config.text_width}"
        )
    return config.model_dump(mode="json"), fits


def _disk_size(path: Path) -> int:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)
