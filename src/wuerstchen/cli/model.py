"""The model of one `wuerstchen generate` with its LoRAs, and whether an image was made by it."""

from pathlib import Path

import torch

from wuerstchen import __version__
from wuerstchen.cli.request import Request
from wuerstchen.display import printable
from wuerstchen.errors import ConfigError
from wuerstchen.inference.pipeline import Pipeline
from wuerstchen.lora import parse_lora
from wuerstchen.terminal import warn
from wuerstchen.weights import ModelFiles

TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Loras = dict[Path, float]
"""Files of LoRAs and their weights."""


def parse_loras(arguments: list[str]) -> Loras:
    """Arguments such as PATH=0.8. Raises ConfigError where two have the same file name."""
    found: Loras = {}
    for path, weight in map(parse_lora, arguments):
        if path.name in names(found):
            raise ConfigError(f"--lora: {path.name} is named twice; name each LoRA once.")
        found[path] = weight
    return found


def names(loras: Loras) -> dict[str, float]:
    """What an image records of them: file names and weights."""
    return {path.name: weight for path, weight in loras.items()}


def check_same(request: Request, model: str, loras: Loras) -> None:
    """Refuse to generate an image again with another model or other LoRAs."""
    again = request.again
    if again is None:
        return
    if again.model != model:
        raise ConfigError(
            f"The image was made by the model {printable(repr(again.model), 80)}, found {model!r}; "
            "pass --model, or --seed for another image with its settings."
        )
    if again.loras != names(loras):
        raise ConfigError(
            f"The image was made with the LoRAs {printable(again.loras or 'none', 200)}, found "
            f"{names(loras) or 'none'}; pass the same ones as --lora PATH=WEIGHT."
        )
    if again.version != __version__:
        made, now = printable(again.version or "unknown", 40), __version__
        warning = f"the image was made by version {made}, this is {now}; it may differ a little."
        warn(warning)


def open_model(files: ModelFiles, request: Request, loras: Loras, *, low_memory: bool) -> Pipeline:
    """A pipeline in the requested precision, on the GPU if there is one."""
    dtype = TORCH_DTYPES[request.settings.dtype]
    pipeline = Pipeline.from_files(files, torch_dtype=dtype, low_memory=low_memory)
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    for path, weight in loras.items():
        pipeline.load_lora_weights(path, adapter_name=path.name, weight=weight)
    if loras and not low_memory:
        pipeline.fuse_lora()
    return pipeline
