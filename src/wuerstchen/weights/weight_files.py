"""Find the file of weights in a component's folder: plain, of a variant, or in shards."""

from pathlib import Path

from wuerstchen.errors import ModelFolderError
from wuerstchen.weights.layout import PLACES, ComponentName

WEIGHT_FILES = ("*.safetensors", "*.pt", "*.pth", "*.ckpt")


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
