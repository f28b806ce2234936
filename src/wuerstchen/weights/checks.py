"""Checks that components are complete, of version 2 and fit together, before a weight is read."""

from pathlib import Path

from wuerstchen.config import CompressorModel, StageBModel, StageCModel
from wuerstchen.errors import ModelFolderError
from wuerstchen.weights import components
from wuerstchen.weights.component import check_blocks
from wuerstchen.weights.component_files import ComponentFiles, ModelFiles
from wuerstchen.weights.headers import read_header
from wuerstchen.weights.identify import identify, refuse_foreign


def check_component(files: ComponentFiles) -> None:
    """Check that the component's files exist, are not cut off, of version 2 and of true depth."""
    if missing := files.missing():
        folder = missing.parent
        raise ModelFolderError(
            f"{folder} lacks {missing.name} of {files.title} (expected {missing}); "
            f"{advice(folder)}."
        )
    header = read_header(files.weights)
    if found := identify(header).get(files.component):
        refuse_foreign(found, files.weights)
    if files.config is not None or header.metadata:  # otherwise sizes follow from the tensors
        config = components.COMPONENTS[files.component].config(files)
        check_blocks(files, components.block_count(config), header.below(files.prefix))


def check_fit(files: ModelFiles) -> None:
    """Check by the configs that the components' channels and text widths agree."""
    compressor = None
    if files.compressor is not None:
        compressor = components.compressor.config(files.compressor)
    check_sizes(
        files.name,
        components.stage_b.config(files.stage_b),
        components.stage_c.config(files.stage_c),
        text_b=components.text_b.config(files.text_b).hidden_size,
        text_c=components.text_c.config(files.text_c).hidden_size,
        compressor=compressor,
    )


def check_sizes(
    name: str,
    b: StageBModel,
    c: StageCModel,
    *,
    text_b: int,
    text_c: int,
    compressor: CompressorModel | None = None,
) -> None:
    """Raise ModelFolderError unless the components of the model `name` fit each other.

    text_b, text_c  widths of the encoders
    """
    pairs = [
        ("text widths of its encoder and Stage C", text_c, c.text_width),
        ("text widths of its encoder and Stage B", text_b, b.text_width),
    ]
    made, read = c.semantic_channels, b.semantic_channels
    if b.reads_semantics:
        pairs.insert(0, ("semantic channels of Stage C and Stage B", made, read))
    if compressor is not None:
        reader, read = ("Stage B", read) if b.reads_semantics else ("Stage C", made)
        what = f"semantic channels of the compressor and {reader}"
        pairs.append((what, compressor.channels, read))
    for what, made, expected in pairs:
        if made != expected:
            raise ModelFolderError(
                f"Model {name or 'without name'}: the {what} must be equal, found "
                f"{made} and {expected}; combine only components that were trained together."
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
