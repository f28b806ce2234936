"""Resolve whole models: all components found, complete and fitting before a weight is read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wuerstchen.errors import ModelFolderError, os_errors_as
from wuerstchen.weights.checks import advice, check_component, check_fit
from wuerstchen.weights.class_of_config import with_configs
from wuerstchen.weights.component_files import ComponentFiles, ModelFiles, component_in
from wuerstchen.weights.folder import front_matter
from wuerstchen.weights.hub import HUB_FILES, TEXT_FILES, USUAL, Hub, find, is_hub_id
from wuerstchen.weights.layout import PLACES, REQUIRED, ComponentName
from wuerstchen.weights.scan import Scan, scan, scan_component
from wuerstchen.weights.unused_keys import check_keys_of_configs

PUBLISHED, PUBLISHED_PRIOR = "warp-ai/wuerstchen", "warp-ai/wuerstchen-prior"


@os_errors_as(ModelFolderError)
def resolve(
    name: str | Path | None = None,
    *,
    prior: str | Path | None = None,
    variant: str | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    configs: Sequence[str | Path] = (),
    compressor: str | Path | None = None,
    tell: Callable[[str], None] | None = None,
) -> ModelFiles:
    """The files of a whole model: the bundled one, or in a folder, a file or on the hub.

    name     a whole model, or a decoder, whose prior is `prior` or named by its README.md
    prior    a prior with its text encoder, or Stage C alone, which then uses the text encoder of
             the decoder's usual prior
    variant  fp16 for NAME.fp16.safetensors, and so on, in both
    revision  of `name`; the others as in huggingface_hub
    configs  config.json files of networks in single files, each identified by its class; also
             taken without being named if it is next to its file
    compressor  a folder, file or hub id that has it, in place of the model's own, if any
    tell     called with a sentence before another repository is opened, which the README.md of
             a model of the hub names

    No weight is read, and only hub ids that the caller or their README.md name are downloaded.
    Raises ModelFolderError where a component is missing, half downloaded, of another generation or
    does not fit the others.
    """
    hub = Hub(cache_dir=cache_dir, local_files_only=local_files_only)
    named_hub = is_hub_id(name) or is_hub_id(prior)
    base = scan(find(name, replace(hub, revision=revision)), variant)
    title = "the bundled model" if name is None else str(name)
    found = dict(base.components)
    if "stage_b" not in found and (base.layout == "prior" or list(found) == ["stage_c"]):
        raise ModelFolderError(
            f"{title} is a prior (it has {base.titles}); pass it as the prior, and as the model "
            f"its decoder, such as {PUBLISHED}."
        )
    if prior is not None:
        found |= _given_prior(_Card(title, base, hub, named_hub, tell), prior, variant)
    elif base.layout == "decoder" and "stage_c" not in found:
        card = _Card(title, base, hub, named_hub, tell)
        found |= _prior_components(scan(card.open(HUB_FILES), variant), card.named())
    if compressor is not None:
        found["compressor"] = scan_component(find(compressor, hub), "compressor")
        check_component(found["compressor"])
    found = with_configs(found, configs)
    _check_whole(title, base, found)
    files = ModelFiles(name=title, source=base.path, **found)
    check_fit(files)
    check_keys_of_configs(files.components())
    return files


@os_errors_as(ModelFolderError)
def resolve_components(
    name: str | Path | None,
    *,
    prior: str | Path | None = None,
    variant: str | None = None,
    configs: Sequence[str | Path] = (),
    tell: Callable[[str], None] | None = None,
) -> tuple[Path, dict[ComponentName, ComponentFiles]]:
    """The path and all components there, a whole model or not; arguments as of `resolve`."""
    base = scan(find(name), variant)
    title = "the bundled model" if name is None else str(name)
    found = dict(base.components)
    if not found:
        raise ModelFolderError(
            f"{title}: expected a model or a component of one, found no file with their keys; name "
            "the folder or file with the weights."
        )
    card = _Card(title, base, USUAL, is_hub_id(name) or is_hub_id(prior), tell)
    if prior is not None:
        found |= _given_prior(card, prior, variant)
    elif base.layout == "decoder" and (named := _card_prior(title, base)):
        try:
            found |= _prior_components(scan(card.open(HUB_FILES), variant), named)
        except ModelFolderError:
            if is_hub_id(name):
                raise
            # A decoder on this machine alone: its prior is only taken if it is here too.
    found = with_configs(found, configs)
    for files in found.values():
        check_component(files)
    check_keys_of_configs(found.values())
    return base.path, found


def resolve_component(name: str | Path, component: ComponentName) -> ComponentFiles:
    """One component in any folder, file or hub repository that has it, such as the compressor in
    `warp-ai/EfficientNetEncoder`; errors as of `resolve`."""
    found = scan_component(find(name), component)
    check_component(found)
    check_keys_of_configs([found])
    return found


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
    """A model of components from anywhere: folders, safetensors, or the authors' .pt files.

    text_b, text_c  folders of a CLIP text model, with its tokenizer or next to it
    compressor      None: the one in Stage B's file, if it has one
    name            the name of the model; empty: that of Stage B's path

    Raises ModelFolderError as `resolve` does.
    """
    included = scan(stage_b).components.get("compressor") if stage_b.is_file() else None
    files = ModelFiles(
        name=name or stage_b.stem,
        source=stage_b,
        stage_a=scan_component(stage_a, "stage_a"),
        stage_b=scan_component(stage_b, "stage_b"),
        stage_c=scan_component(stage_c, "stage_c"),
        text_b=scan_component(text_b, "text_b"),
        text_c=scan_component(text_c, "text_c"),
        compressor=included if compressor is None else scan_component(compressor, "compressor"),
    )
    for component in files.components():
        check_component(component)
    check_fit(files)
    check_keys_of_configs(files.components())
    return files


@dataclass(frozen=True, slots=True)
class _Card:
    """The README.md of a decoder, which may name its prior."""

    title: str
    base: Scan
    hub: Hub
    network: bool
    """Whether the caller named a repository of the hub, so that others may be downloaded."""
    tell: Callable[[str], None] | None

    def named(self) -> str:
        """The hub id of the prior; raises ModelFolderError if none is named."""
        if named := _card_prior(self.title, self.base):
            return named
        raise ModelFolderError(
            f"{self.title} is a decoder (it has {self.base.titles}) without Stage C or its text "
            "encoder, and no README.md there names its prior; pass prior= (--prior), a folder or "
            f"a hub id such as {PUBLISHED_PRIOR}."
        )

    def open(self, patterns: Sequence[str]) -> Path:
        """The folder of the named prior; without the network, unless the caller named a hub id."""
        named = self.named()
        if self.network:
            if self.tell is not None:
                self.tell(f"{self.title} names {named} as its prior, which is opened too.")
            return find(named, self.hub, patterns=patterns)
        try:
            return find(named, replace(self.hub, local_files_only=True), patterns=patterns)
        except ModelFolderError:
            raise ModelFolderError(
                f"{self.title} is a decoder (it has {self.base.titles}), and its README.md names "
                f"the prior {named}, which is not on this machine; pass prior={named!r} (--prior "
                f"{named}) to download it, or a folder."
            ) from None


def _given_prior(
    card: _Card, prior: str | Path, variant: str | None
) -> dict[ComponentName, ComponentFiles]:
    given = scan(find(prior, card.hub), variant)
    if "stage_c" not in given.components and "stage_b" in given.components:
        raise ModelFolderError(
            f"prior={str(prior)!r} is a decoder (it has {given.titles}); pass it as the model, "
            "and a prior, which has Stage C, as prior= (--prior)."
        )
    found = _prior_components(given, str(prior))
    if "text_c" not in found and "text_c" not in card.base.components:
        # Stage C alone: its text encoder is that of the decoder's usual prior.
        text = scan(card.open(TEXT_FILES), variant).components
        encoder = text.get("text_c") or text.get("text_b")
        if encoder is not None:
            found["text_c"] = replace(encoder, component="text_c")
    return found


def _prior_components(given: Scan, title: str) -> dict[ComponentName, ComponentFiles]:
    if "stage_c" not in given.components:
        raise ModelFolderError(
            f"{title}: expected a prior, which has Stage C, found {given.titles} at "
            f"{given.path}; {advice(given.path)}."
        )
    names: tuple[ComponentName, ...] = ("stage_c", "text_c")
    return {name: given.components[name] for name in names if name in given.components}


def _card_prior(title: str, base: Scan) -> str:
    """The hub id of a decoder's prior by the decoder's README.md, or nothing."""
    named = front_matter(base.path / "README.md").get("prior")
    first = named[0] if isinstance(named, list) and named else named
    if isinstance(first, str) and first:
        return first
    return PUBLISHED_PRIOR if title == PUBLISHED else ""


def _check_whole(title: str, base: Scan, components: dict[ComponentName, ComponentFiles]) -> None:
    for name in REQUIRED:
        found = components.get(name)
        own = found is base.components.get(name)
        if own and base.layout == "model" and not is_hub_id(title):
            if found is None or found.missing():
                component_in(base.path, name)  # raises, and says how to train it
        if found is None and base.layout == "both" and PLACES[name].tokenizer:
            place = PLACES[name]
            raise ModelFolderError(
                f"{title} lacks {place.title}: the width of its text_encoder fits the other stage "
                f"alone; put it into {place.folder} and {place.tokenizer}, or pass the folder of "
                "the prior as prior= (--prior)."
            )
        if found is None:
            raise ModelFolderError(
                f"{title} lacks {PLACES[name].title}, found {base.titles}; {advice(base.path)}."
            )
        check_component(found)
