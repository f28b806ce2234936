"""Describe a LoRA by its keys and shapes, for `wuerstchen inspect`."""

from pathlib import Path

from wuerstchen.lora.keys import foreign, format_of, parse, refused
from wuerstchen.lora.layers import flat
from wuerstchen.lora.load import PEFT_CONFIG, PEFT_WEIGHTS
from wuerstchen.weights.describe import ComponentReport, Report, dtypes_of, size_of
from wuerstchen.weights.folder import NOT_STATED, licence
from wuerstchen.weights.headers import Header, read_header
from wuerstchen.weights.identify import GENERATIONS, identify

STYLES = {
    "peft": "PEFT",
    "diffusers": "diffusers",
    "kohya": "kohya",
    "onetrainer": "OneTrainer",
    "original": "StableCascade",
}
CASCADE_WIDTH = 2048
"""Width of Stage C of Stable Cascade; ours has 1536."""


def describe_lora(path: Path) -> Report | None:
    """Describe a LoRA file or folder of peft; None for anything else.

    Adapters that cannot be opened and those for other models are described too.
    """
    file = path / PEFT_WEIGHTS if (path / PEFT_CONFIG).is_file() else path
    if not file.is_file() or file.suffix != ".safetensors":
        return None
    header = read_header(file)
    adapter = refused(header.tensors)
    halves = {key: found[1] for key in header.tensors if (found := parse(key))}
    if identify(header) or not (halves or adapter):
        return None
    style = STYLES[format_of(header.tensors, header.metadata)]
    generation, fits = _fits(header)
    downs = [header.tensors[key].shape for key, half in halves.items() if half == "down"]
    ranks = sorted({shape[0] for shape in downs if len(shape) > 1})
    component = ComponentReport(
        title="adapter" if adapter else "LoRA",
        path=str(file),
        generation=generation,
        naming=style,
        parameters=sum(stored.count for stored in header.tensors.values()),
        size=size_of(header.tensors),
        dtypes=dtypes_of(header.tensors),
        sizes={"ranks": ranks, "tensors": len(header.tensors)},
        fits=fits,
    )
    return Report(
        path=str(path),
        what=f"{adapter}, which cannot be opened" if adapter else f"a LoRA ({style} style)",
        generation=generation,
        licence=licence(file),
        size=file.stat().st_size,
        components=(component,),
    )


def _fits(header: Header) -> tuple[str, str]:
    """The generation and network of the LoRA, as far as keys and shapes show."""
    other = foreign(header.tensors)
    if other is not None and not other[0].startswith("Stable Cascade"):
        return f"none of Würstchen: {other[0]}", f"{other[0]}, by its key {other[1]}"
    if other or any(CASCADE_WIDTH in stored.shape for stored in header.tensors.values()):
        return GENERATIONS["v3"], "Stage C or B of Stable Cascade, no network here"
    names = [flat(key) for key in header.tensors]
    if any("blocks_" in name and "text_model" not in name for name in names):
        stage_b = any("up_blocks_" in name or "down_blocks_" in name for name in names)
        letter = "B" if stage_b else "C"
        return GENERATIONS["v2"], f"Stage {letter}: `--lora` checks whether every key fits"
    if any("text_model" in name or "_te_" in name for name in names):
        return NOT_STATED, "a text encoder"
    return NOT_STATED, "the network whose modules its keys name"
