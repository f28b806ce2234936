"""Find a component's folder, and its file of weights: plain, of a variant, or in shards."""

from pathlib import Path

from wuerstchen.errors import ModelFolderError, SaveError
from wuerstchen.weights.layout import CONFIG, PLACES, ComponentName

WEIGHT_FILES = ("*.safetensors", "*.pt", "*.pth", "*.ckpt")
PRIOR = "prior"
"""The folder of Stage C in a prior of the hub."""


def prior_folder(path: Path) -> Path | None:
    """The folder of Stage C in `prior/`, which is a component, or a prior of the hub itself."""
    for folder in (path / PRIOR, path / PRIOR / PRIOR):
        if (folder / CONFIG).is_file() or any(any(folder.glob(each)) for each in WEIGHT_FILES):
            return folder
    return None


def check_not_twice(folder: Path, component: ComponentName) -> None:
    """Raise SaveError if a model folder that gets a component has it under another name."""
    if component == "stage_c" and (prior := prior_folder(folder)) is not None:
        raise SaveError(
            f"{folder} has {PLACES[component].title} already, in {prior}; move {prior} elsewhere, "
            "or choose another output."
        )


def find_weights(folder: Path, component: ComponentName, variant: str | None) -> Path:
    """The file or index of shards, or the usual name if there is none.

    Raises ModelFolderError where only other variants exist.
    """
    usual = PLACES[component].weights
    names = dict.fromkeys((usual, "diffusion_pytorch_model.safetensors", "model.safetensors"))
    stems = [name.removesuffix(".safetensors") for name in names]
    infix = f".{variant}" if variant else ""
    for stem in stems:
        for name in (f"{stem}{infix}.safetensors", f"{stem}.safetensors.index{infix}.json"):
            if (path := folder / name).is_file():
                return path
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
        return find_weights(folder, component, None)
    return folder / usual
