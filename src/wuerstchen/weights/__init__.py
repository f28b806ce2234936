"""Model folders: our networks to safetensors and back, in the layout that diffusers reads.

A model folder is what diffusers calls a combined pipeline, plus `compressor/`:

    vqgan/        Stage A          prior_prior/                          Stage C
    decoder/      Stage B          prior_text_encoder/ prior_tokenizer/  text of Stage C
    compressor/                    text_encoder/ tokenizer/              text of Stage B
    scheduler/ prior_scheduler/ model_index.json                         what diffusers asks for

In memory the networks have our names, on disk the published ones; only this package knows both.
Only safetensors are opened. Everything is written aside and then renamed.
"""

from wuerstchen.weights.features import load_backbone, load_features
from wuerstchen.weights.folder import finish_folder
from wuerstchen.weights.layout import Part, has_part
from wuerstchen.weights.networks import (
    load_compressor,
    load_stage_a,
    load_stage_b,
    load_stage_c,
    save_compressor,
    save_stage_a,
    save_stage_b,
    save_stage_c,
)
from wuerstchen.weights.text import load_text_encoder, open_text_encoder, save_text_encoder

__all__ = [
    "Part",
    "finish_folder",
    "has_part",
    "load_backbone",
    "load_compressor",
    "load_features",
    "load_stage_a",
    "load_stage_b",
    "load_stage_c",
    "load_text_encoder",
    "open_text_encoder",
    "save_compressor",
    "save_stage_a",
    "save_stage_b",
    "save_stage_c",
    "save_text_encoder",
]
