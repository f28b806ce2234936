"""Copy a model folder into the package as its bundled model, with weights in fp16.

    python tools/bundle.py models/emoji

The copy holds no run folders, opens everywhere a model folder opens, and must stay under 40 MB.
"""

import sys
from pathlib import Path

import torch

from wuerstchen import weights
from wuerstchen.inference import model_info

BUNDLED = Path(__file__).parents[1] / "src" / "wuerstchen" / "bundled"


def bundle(source: Path) -> Path:
    """Write the copy; returns its folder."""
    info = model_info.read_info(source, source.name)
    target = BUNDLED / source.name
    half = torch.float16
    weights.save_stage_a(target, weights.load_stage_a(source), half)
    weights.save_compressor(target, weights.load_compressor(source), half)
    weights.save_stage_b(target, weights.load_stage_b(source), half)
    weights.save_stage_c(target, weights.load_stage_c(source), half)
    for stage in ("b", "c"):
        weights.save_text_encoder(target, weights.load_text_encoder(source, stage), stage, half)
    weights.finish_folder(target)
    model_info.write_info(target, info)
    return target


if __name__ == "__main__":
    print(bundle(Path(sys.argv[1])))
