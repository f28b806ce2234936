"""Copy a model folder into the package as its bundled model, with weights in fp16.

    python tools/bundle.py models/stickers

The copy has no run folders, opens like any model folder, and must stay below 60 MB.
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
    weights.stage_a.save(target, weights.stage_a.load(source), half)
    weights.compressor.save(target, weights.compressor.load(source), half)
    weights.stage_b.save(target, weights.stage_b.load(source), half)
    weights.stage_c.save(target, weights.stage_c.load(source), half)
    weights.text_b.save(target, weights.text_b.load(source), half)
    weights.text_c.save(target, weights.text_c.load(source), half)
    weights.write_index(target)
    model_info.write_info(target, info)
    return target


if __name__ == "__main__":
    print(bundle(Path(sys.argv[1])))
