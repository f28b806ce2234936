"""Model files: our networks to safetensors and back, in the layout that diffusers reads.

A model folder is what diffusers calls a combined pipeline, plus `compressor/`:

    vqgan/        Stage A          prior_prior/                          Stage C
    decoder/      Stage B          prior_text_encoder/ prior_tokenizer/  text of Stage C
    compressor/                    text_encoder/ tokenizer/              text of Stage B
    scheduler/ prior_scheduler/ model_index.json                         what diffusers asks for

In memory the networks have our names, on disk the published ones; only this package knows both.
`locate` finds a model in this and in all other layouts of version 2, as parts that can be opened
alone: an `outline_…` has no weights, `tensors` are the weights, `open_…` is both.
Safetensors are opened, and of the authors' own files what torch can read without running code.
Everything is written aside and then renamed.
"""

from wuerstchen.weights.backbones import load_backbone, load_features
from wuerstchen.weights.checks import check_fit
from wuerstchen.weights.components import (
    compressor_config,
    filled,
    open_compressor,
    open_stage_a,
    open_stage_b,
    open_stage_c,
    outline_compressor,
    outline_stage_a,
    outline_stage_b,
    outline_stage_c,
    stage_a_config,
    stage_b_config,
    stage_c_config,
    stored_dtype,
    tensors,
)
from wuerstchen.weights.convert import Target, convert
from wuerstchen.weights.describe import PartReport, Report, describe
from wuerstchen.weights.folder import finish_folder
from wuerstchen.weights.layout import Part, has_part
from wuerstchen.weights.merge import merge
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
from wuerstchen.weights.parts import ModelFiles, PartFiles
from wuerstchen.weights.resolve import from_files, locate, locate_part, locate_parts
from wuerstchen.weights.text import (
    load_text_encoder,
    open_text,
    open_text_encoder,
    outline_text,
    save_text_encoder,
)

__all__ = [
    "ModelFiles",
    "Part",
    "PartFiles",
    "PartReport",
    "Report",
    "Target",
    "check_fit",
    "compressor_config",
    "convert",
    "describe",
    "filled",
    "finish_folder",
    "from_files",
    "has_part",
    "load_backbone",
    "load_compressor",
    "load_features",
    "load_stage_a",
    "load_stage_b",
    "load_stage_c",
    "load_text_encoder",
    "locate",
    "locate_part",
    "locate_parts",
    "merge",
    "open_compressor",
    "open_stage_a",
    "open_stage_b",
    "open_stage_c",
    "open_text",
    "open_text_encoder",
    "outline_compressor",
    "outline_stage_a",
    "outline_stage_b",
    "outline_stage_c",
    "outline_text",
    "save_compressor",
    "save_stage_a",
    "save_stage_b",
    "save_stage_c",
    "save_text_encoder",
    "stage_a_config",
    "stage_b_config",
    "stage_c_config",
    "stored_dtype",
    "tensors",
]
