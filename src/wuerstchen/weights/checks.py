"""Checks that components are complete, of version 2 and fit together, before a weight is read."""

from pathlib import Path

from wuerstchen.errors import ModelFolderError
from wuerstchen.weights import components
from wuerstchen.weights.component_files import ComponentFiles, ModelFiles
from wuerstchen.weights.headers import read_header
from wuerstchen.weights.identify import identify, refuse_foreign


def check_component(files: ComponentFiles) -> None:
    """Check that the component's files exist, are not cut off, and are of version 2."""
    if missing := files.missing():
        folder = missing.parent
        raise ModelFolderError(
            f"{folder} lacks {missing.name} of {files.title} (expected {missing}); "
            f"{advice(folder)}."
        )
    if found := identify(read_header(files.weights)).get(files.component):
        refuse_foreign(found, files.weights)


def check_fit(files: ModelFiles) -> None:
    """Check by the configs that the components' channels and text widths agree."""
    b, c = components.stage_b.config(files.stage_b), components.stage_c.config(files.stage_c)
    text_b = components.text_b.config(files.text_b)
    text_c = components.text_c.config(files.text_c)
    pairs = [
        ("semantic channels of Stage C and Stage B", c.semantic_channels, b.semantic_channels),
        ("text widths of its encoder and Stage C", text_c.hidden_size, c.text_width),
        ("text widths of its encoder and Stage B", text_b.hidden_size, b.text_width),
    ]
    if files.compressor is not None:
        channels = components.compressor.config(files.compressor).channels
        pairs.append(
            ("semantic channels of the compressor and Stage B", channels, b.semantic_channels)
        )
    for what, made, expected in pairs:
        if made != expected:
            raise ModelFolderError(
                f"Model {files.name}: the {what} must be equal, found {made} and {expected}; "
                "combine only components that were trained together."
            )


def advice(path: Path) -> str:
    """What to do about a missing component."""
    if path.is_file():
        return "combine a whole model from several files, or name a model folder"
    root = next((p for p in (path, *path.parents) if p.name.startswith("models--")), path)
    unfinished = next(root.rglob("*.incomplete"), None)
    if unfinished is not None:
        return f"a download did not finish ({unfinished.name}); download it again"
    if root is not path or path.name.startswith("models--"):
        return "the local cache is incomplete; open it again while the hub can be reached"
    return "copy it again as a whole"
