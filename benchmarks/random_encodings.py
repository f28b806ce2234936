"""Random latents, semantics and text states, in the format of `wuerstchen encode`."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from wuerstchen.training.latent_cache import (
    ENCODING,
    Encoding,
    EncodingInfo,
    EncodingKind,
    file_name,
)


def random_encoding(
    folder: Path, kind: EncodingKind, shape: tuple[int, ...], count: int
) -> Encoding:
    """Write `count` fp16 rows of this shape into a new folder, and open them."""
    folder.mkdir()
    rows = {str(row): torch.randn(shape, dtype=torch.float16) for row in range(count)}
    save_file(rows, folder / file_name(0))
    info = EncodingInfo(what=kind, rows=count, dtype="fp16", made_of={})
    (folder / ENCODING).write_text(info.model_dump_json())
    return Encoding(folder, info)
