"""Model files: our networks to safetensors and back, in the layout that diffusers reads.

A model folder is what diffusers calls a combined pipeline, plus `compressor/`:

    vqgan/        Stage A          prior_prior/                          Stage C
    decoder/      Stage B          prior_text_encoder/ prior_tokenizer/  text of Stage C
    compressor/                    text_encoder/ tokenizer/              text of Stage B
    scheduler/ prior_scheduler/ model_index.json                         required by diffusers

In memory the networks have our names, on disk the published ones; only this package knows both.
`resolve` finds a model in this and all other layouts of version 2. Each component, such as
`stage_a`, has a `.config(files)`, an `.empty(files)` network without weights, `.load()` and
`.save()`. Only safetensors are opened, and of the authors' own files what torch reads without
running code. Everything is written to a temporary path and then renamed.
"""

from wuerstchen.weights.backbones import load_backbone, load_features
from wuerstchen.weights.checks import check_component, check_fit
from wuerstchen.weights.component import Component, fill, stored_dtype, tensors
from wuerstchen.weights.component_files import (
    ComponentFiles,
    ModelFiles,
    component_in,
    has_component,
)
from wuerstchen.weights.components import compressor, stage_a, stage_b, stage_c, text_b, text_c
from wuerstchen.weights.convert import convert
from wuerstchen.weights.describe import ComponentReport, Report, describe
from wuerstchen.weights.folder import write_index
from wuerstchen.weights.hub import find
from wuerstchen.weights.layout import ComponentName
from wuerstchen.weights.left_out import left_out, listed
from wuerstchen.weights.merge import merge
from wuerstchen.weights.resolve import from_files, resolve, resolve_component, resolve_components
from wuerstchen.weights.text import load_clip_text

__all__ = [
    "Component",
    "ComponentFiles",
    "ComponentName",
    "ComponentReport",
    "ModelFiles",
    "Report",
    "check_component",
    "check_fit",
    "component_in",
    "compressor",
    "convert",
    "describe",
    "fill",
    "find",
    "from_files",
    "has_component",
    "left_out",
    "listed",
    "load_backbone",
    "load_clip_text",
    "load_features",
    "merge",
    "resolve",
    "resolve_component",
    "resolve_components",
    "stage_a",
    "stage_b",
    "stage_c",
    "stored_dtype",
    "tensors",
    "text_b",
    "text_c",
    "write_index",
]
