"""What a file or folder is, by its headers and configs: kind, generation, sizes, what fits it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wuerstchen.errors import ModelFolderError
from wuerstchen.weights.checks import absent_file
from wuerstchen.weights.components import (
    compressor_config,
    stage_a_config,
    stage_b_config,
    stage_c_config,
)
from wuerstchen.weights.headers import Header, Stored, read_header
from wuerstchen.weights.identify import (
    CALLED,
    NEEDS,
    ForeignModelError,
    Found,
    Generation,
    networks,
)
from wuerstchen.weights.layout import PLACES, Part
from wuerstchen.weights.model_card import licence
from wuerstchen.weights.parts import PartFiles
from wuerstchen.weights.resolve import DRAWING
from wuerstchen.weights.scan import survey
from wuerstchen.weights.text import text_facts
from wuerstchen.weights.text_names import text_names

STATISTICS = ("running_mean", "running_var", "num_batches_tracked", "position_ids")
"""Ends of the names of what is stored beside parameters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartReport:
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
    """All that is known of a path."""

    path: str
    what: str
    generation: str
    licence: str
    size: int
    """Bytes on disk."""
    parts: tuple[PartReport, ...] = ()
    note: str = ""


def describe(path: Path, variant: str | None = None) -> Report:
    """Look at a file or folder; no weight is read. Raises ModelFolderError where nothing is known.

    Models of versions 1 and 3 are described too, as far as keys and configs go.
    """
    if path.is_file():
        header = read_header(path)
        found = networks(header)
        if found and any(network.generation != "v2" for network in found.values()):
            return _foreign_file(header, found)
    try:
        seen = survey(path, variant)
    except ForeignModelError as error:
        return Report(
            path=str(path),
            what=error.title,
            generation=CALLED[error.generation],
            licence=licence(path),
            size=_size(path),
            note=f"{NEEDS[error.generation]}.",
        )
    if not seen.parts:
        raise ModelFolderError(
            f"{path}: expected a model, a part of one or a LoRA, found no file with keys of "
            "either; name the folder or file with the weights."
        )
    return Report(
        path=str(path),
        what=_what(seen.layout, [part for part in PLACES if part in seen.parts]),
        generation=CALLED["v2"],
        licence=licence(path),
        size=_size(path),
        parts=tuple(_part(seen.parts[part]) for part in PLACES if part in seen.parts),
        note=_lacking(seen.parts),
    )


def _what(layout: str, parts: list[Part]) -> str:
    titles = " and ".join(PLACES[part].title for part in parts)
    if set(DRAWING) <= set(parts):
        return "a whole model"
    if layout in ("decoder", "prior"):
        return f"a {layout} ({titles})"
    return "a text encoder" if layout == "part" and parts[0] in ("text_b", "text_c") else titles


def _lacking(parts: Mapping[Part, PartFiles]) -> str:
    """A sentence on files that are missing, which the title does not tell."""
    absent = [str(path) for path in map(absent_file, parts.values()) if path is not None]
    return f"Not complete: {', '.join(absent)} is missing; copy it again." if absent else ""


def _part(part: PartFiles) -> PartReport:
    sizes, fits = _sizes(part)
    stored = read_header(part.weights).below(part.prefix)
    naming = "diffusers" if part.naming == "published" else "the authors"
    is_text = part.part in ("text_b", "text_c")
    return _report(
        part.weights, part.part, "v2", "transformers" if is_text else naming, stored, sizes, fits
    )


def _foreign_file(header: Header, found: dict[Part, Found]) -> Report:
    parts = tuple(
        _report(
            header.path, network.part, network.generation, network.naming, network.tensors, {}, ""
        )
        for network in found.values()
    )
    generation = next(n.generation for n in found.values() if n.generation != "v2")
    return Report(
        path=str(header.path),
        what=" and ".join(part.title for part in parts),
        generation=CALLED[generation],
        licence=licence(header.path),
        size=_size(header.path),
        parts=parts,
        note=f"{NEEDS[generation]}.",
    )


def _report(
    path: Path,
    part: Part,
    generation: Generation,
    naming: str,
    stored: Mapping[str, Stored],
    sizes: dict[str, object],
    fits: str,
) -> PartReport:
    if part in ("text_b", "text_c"):
        stored = {key: stored[key] for key in text_names(stored)}
    return PartReport(
        title=PLACES[part].title,
        path=str(path),
        generation=CALLED[generation],
        naming=naming,
        parameters=sum(s.count for key, s in stored.items() if not key.endswith(STATISTICS)),
        size=size_of(stored),
        dtypes=dtypes_of(stored),
        sizes=sizes,
        fits=fits,
    )


def _sizes(part: PartFiles) -> tuple[dict[str, object], str]:
    """Sizes of a part, and a sentence on its neighbours."""
    if part.part == "stage_a":
        a = stage_a_config(part)
        return a.model_dump(mode="json"), f"latents of {a.latent_channels} channels"
    if part.part == "stage_b":
        b = stage_b_config(part)
        return b.model_dump(mode="json"), (
            f"Stage C and compressor for semantics of {b.semantic_channels} channels; text encoder "
            f"of width {b.text_width}"
        )
    if part.part == "stage_c":
        c = stage_c_config(part)
        return c.model_dump(mode="json"), (
            f"Stage B for semantics of {c.semantic_channels} channels; text encoder of width "
            f"{c.text_width}"
        )
    if part.part == "compressor":
        made = compressor_config(part)
        return made.model_dump(mode="json"), (
            f"Stages B and C for semantics of {made.channels} channels"
        )
    text = text_facts(part)
    return text, f"a stage that reads text of width {text['width']}"


def dtypes_of(stored: Mapping[str, Stored]) -> tuple[str, ...]:
    """Kinds of the floating-point numbers among tensors."""
    kinds = {s.dtype for s in stored.values() if s.dtype.is_floating_point}
    return tuple(sorted(str(kind).removeprefix("torch.") for kind in kinds))


def size_of(stored: Mapping[str, Stored]) -> int:
    """Bytes of tensors."""
    return sum(s.count * s.dtype.itemsize for s in stored.values())


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)
