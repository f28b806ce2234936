"""Whether parts are complete, of version 2 and of one family, before a weight is read."""

from pathlib import Path

from wuerstchen.errors import ModelFolderError
from wuerstchen.weights.components import compressor_config, stage_b_config, stage_c_config
from wuerstchen.weights.headers import read_header
from wuerstchen.weights.identify import networks, refuse_foreign
from wuerstchen.weights.layout import TOKENIZER_CONFIG, VOCABULARY, has_vocabulary
from wuerstchen.weights.parts import ModelFiles, PartFiles
from wuerstchen.weights.text import text_width


def check_part(part: PartFiles) -> None:
    """That the part's files are there, not cut off, and of version 2; no weight is read."""
    absent = absent_file(part)
    if absent is not None:
        folder = absent.parent
        raise ModelFolderError(
            f"{folder} lacks {absent.name} of {part.title} (expected {absent}); {advice(folder)}."
        )
    found = networks(read_header(part.weights)).get(part.part)
    if found is not None:
        refuse_foreign(found, part.weights)


def check_fit(files: ModelFiles) -> None:
    """That no part makes what another cannot take, by their configs; no weight is read."""
    b, c = stage_b_config(files.stage_b), stage_c_config(files.stage_c)
    pairs = [
        ("channels of semantics of Stage C and B", c.semantic_channels, b.semantic_channels),
        ("text widths of its encoder and Stage C", text_width(files.text_c), c.text_width),
        ("text widths of its encoder and Stage B", text_width(files.text_b), b.text_width),
    ]
    if files.compressor is not None:
        made = compressor_config(files.compressor).channels
        pairs.append(
            ("channels of semantics of the compressor and Stage B", made, b.semantic_channels)
        )
    for what, made, taken in pairs:
        if made != taken:
            raise ModelFolderError(
                f"Model {files.name}: the {what} must be equal, found {made} and {taken}; put "
                "together only parts that were trained together."
            )


def absent_file(part: PartFiles) -> Path | None:
    """The first file of the part that is not there."""
    needed = [part.weights] if part.config is None else [part.config, part.weights]
    if part.tokenizer is not None:
        needed.append(part.tokenizer / TOKENIZER_CONFIG)
        if not has_vocabulary(part.tokenizer):
            needed.append(part.tokenizer / VOCABULARY)
    return next((path for path in needed if not path.is_file()), None)


def advice(path: Path) -> str:
    """What to do about a part that is not there."""
    if path.is_file():
        return "put a whole model together from several files, or name a model folder"
    root = next((p for p in (path, *path.parents) if p.name.startswith("models--")), path)
    halves = next(root.rglob("*.incomplete"), None)
    if halves is not None:
        return f"a download was not finished ({halves.name}); download it again"
    if root is not path or path.name.startswith("models--"):
        return (
            "the copy in the local cache is not complete; open it again while the hub can be "
            "reached (local_files_only=False)"
        )
    return "copy it again as a whole"
