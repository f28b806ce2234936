"""Whole models: all parts found, complete and of one family before a weight is read."""

from dataclasses import replace
from pathlib import Path

from wuerstchen.errors import ModelFolderError
from wuerstchen.weights.checks import absent_file, advice, check_fit, check_part
from wuerstchen.weights.hub import HUB_FILES, TEXT_FILES, Hub, find, is_hub_id
from wuerstchen.weights.layout import PLACES, Part, need_part
from wuerstchen.weights.model_card import front_matter
from wuerstchen.weights.parts import ModelFiles, PartFiles
from wuerstchen.weights.scan import Survey, as_part, survey

PUBLISHED, PUBLISHED_PRIOR = "warp-ai/wuerstchen", "warp-ai/wuerstchen-prior"
DRAWING: tuple[Part, ...] = ("stage_a", "stage_b", "stage_c", "text_b", "text_c")


def locate(
    name: str | Path | None = None,
    *,
    prior: str | Path | None = None,
    variant: str | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> ModelFiles:
    """All parts of a model: of the bundled one, or in a folder, a file, or on the hub.

    name     a whole model, or a decoder, whose prior is `prior` or else what its README.md names
    prior    a prior with its text encoder, or Stage C alone: then the text encoder is that of the
             prior which `name` goes with
    variant  fp16 for NAME.fp16.safetensors, and so on, in both
    revision  of `name`; the others as in huggingface_hub

    No weight is read. Raises ModelFolderError where a part is missing, half downloaded, of another
    generation or of another size than its neighbour needs.
    """
    hub = Hub(cache_dir=cache_dir, local_files_only=local_files_only)
    base = survey(_find(name, hub, revision), variant)
    called = "the bundled model" if name is None else str(name)
    parts = dict(base.parts)
    if "stage_b" not in parts and (base.layout == "prior" or list(parts) == ["stage_c"]):
        raise ModelFolderError(
            f"{called} is a prior (it holds {base.titles}); pass it as the prior, and as the model "
            f"its decoder, such as {PUBLISHED}."
        )
    if prior is not None:
        parts |= _given_prior(called, base, prior, variant, hub)
    elif base.layout == "decoder" and "stage_c" not in parts:
        named = _named_prior(called, base)
        parts |= _prior_parts(survey(_find(named, hub), variant), named)
    _check_whole(called, base, parts)
    files = ModelFiles(
        name=called,
        source=base.path,
        stage_a=parts["stage_a"],
        stage_b=parts["stage_b"],
        stage_c=parts["stage_c"],
        text_b=parts["text_b"],
        text_c=parts["text_c"],
        compressor=parts.get("compressor"),
    )
    check_fit(files)
    return files


def locate_parts(
    name: str | Path | None = None,
    *,
    prior: str | Path | None = None,
    variant: str | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> tuple[Path, dict[Part, PartFiles]]:
    """Whatever parts are there, complete or not a model, and where; arguments as of `locate`."""
    hub = Hub(cache_dir=cache_dir, local_files_only=local_files_only)
    base = survey(_find(name, hub, revision), variant)
    called = "the bundled model" if name is None else str(name)
    parts = dict(base.parts)
    if not parts:
        raise ModelFolderError(
            f"{called}: expected a model or a part of one, found no file with keys of either; name "
            "the folder or file with the weights."
        )
    if prior is not None:
        parts |= _given_prior(called, base, prior, variant, hub)
    elif base.layout == "decoder" and (named := _card_prior(called, base)):
        parts |= _prior_parts(survey(_find(named, hub), variant), named)
    for part in parts.values():
        check_part(part)
    return base.path, parts


def from_files(
    *,
    stage_a: Path,
    stage_b: Path,
    stage_c: Path,
    text_b: Path,
    text_c: Path,
    compressor: Path | None = None,
    name: str = "",
) -> ModelFiles:
    """A model of parts from anywhere: folders, safetensors, or the authors' .pt files.

    text_b, text_c  folders of a CLIP text model, with its tokenizer or beside it
    compressor      None: the one in Stage B's file, if it holds one
    name            what the model is called; empty: the name of Stage B's path

    Raises ModelFolderError as `locate` does.
    """
    inside = survey(stage_b).parts.get("compressor") if stage_b.is_file() else None
    files = ModelFiles(
        name=name or stage_b.stem,
        source=stage_b,
        stage_a=as_part(stage_a, "stage_a"),
        stage_b=as_part(stage_b, "stage_b"),
        stage_c=as_part(stage_c, "stage_c"),
        text_b=as_part(text_b, "text_b"),
        text_c=as_part(text_c, "text_c"),
        compressor=inside if compressor is None else as_part(compressor, "compressor"),
    )
    for part in files.parts():
        check_part(part)
    check_fit(files)
    return files


def locate_part(
    name: str | Path,
    part: Part,
    *,
    variant: str | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> PartFiles:
    """One part in any folder, file or hub repository that holds it, such as
    `warp-ai/EfficientNetEncoder` for the compressor; arguments and errors as of `locate`."""
    hub = Hub(cache_dir=cache_dir, local_files_only=local_files_only)
    found = as_part(_find(name, hub, revision), part, variant)
    check_part(found)
    return found


def _find(
    name: str | Path | None, hub: Hub, revision: str | None = None, *, text_alone: bool = False
) -> Path:
    return find(
        name,
        revision=revision,
        cache_dir=hub.cache_dir,
        local_files_only=hub.local_files_only,
        patterns=TEXT_FILES if text_alone else HUB_FILES,
    )


def _given_prior(
    called: str, base: Survey, prior: str | Path, variant: str | None, hub: Hub
) -> dict[Part, PartFiles]:
    given = survey(_find(prior, hub), variant)
    if "stage_c" not in given.parts and "stage_b" in given.parts:
        raise ModelFolderError(
            f"prior={str(prior)!r} is a decoder (it holds {given.titles}); pass it as the model "
            "and a prior, which holds Stage C, as prior= (--prior)."
        )
    parts = _prior_parts(given, str(prior))
    if "text_c" not in parts and "text_c" not in base.parts:
        # Stage C alone: its text encoder is the one of the prior that the decoder goes with.
        named = _named_prior(called, base)
        text = survey(_find(named, hub, text_alone=True), variant)
        alone = text.parts.get("text_c") or text.parts.get("text_b")
        if alone is not None:
            parts["text_c"] = replace(alone, part="text_c")
    return parts


def _prior_parts(given: Survey, called: str) -> dict[Part, PartFiles]:
    if "stage_c" not in given.parts:
        raise ModelFolderError(
            f"{called}: expected a prior, which holds Stage C, found {given.titles} at "
            f"{given.path}; {advice(given.path)}."
        )
    return {part: given.parts[part] for part in ("stage_c", "text_c") if part in given.parts}


def _card_prior(called: str, base: Survey) -> str:
    """The hub id of the prior that belongs to a decoder, by the decoder's README.md, or nothing."""
    named = front_matter(base.path / "README.md").get("prior")
    first = named[0] if isinstance(named, list) and named else named
    if isinstance(first, str) and first:
        return first
    return PUBLISHED_PRIOR if called == PUBLISHED else ""


def _named_prior(called: str, base: Survey) -> str:
    if named := _card_prior(called, base):
        return named
    raise ModelFolderError(
        f"{called} is a decoder (it holds {base.titles}) without Stage C or its text encoder, and "
        f"no README.md there names its prior; pass prior= (--prior), a folder or a hub id such as "
        f"{PUBLISHED_PRIOR}."
    )


def _check_whole(called: str, base: Survey, parts: dict[Part, PartFiles]) -> None:
    for part in DRAWING:
        found = parts.get(part)
        own = found is base.parts.get(part)
        if own and base.layout == "model" and not is_hub_id(called):
            if found is None or absent_file(found):
                need_part(base.path, part)  # says how to train it
        if found is None:
            raise ModelFolderError(
                f"{called} lacks {PLACES[part].title}, found {base.titles}; {advice(base.path)}."
            )
        check_part(found)
