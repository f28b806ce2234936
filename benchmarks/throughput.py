"""Images per second of training Stage C at the published size, compared with diffusers.

    python -m benchmarks.throughput [--kinds lora,whole] [--sides 512,1024] [--rounds 2]

Ours reads cached semantics and text states. The other side does what diffusers' published
fine-tuning scripts for this prior do in every step: decode and crop the image, run the compressor
and the text encoder without gradients, then take the same step. Both have random weights of the
published sizes, the same batch size, gradient clipping, no EMA weights, and fp32 on a CPU. AdamW is
configured as on each side: fused in our trainer, torch's default in their scripts. lora: rank 4
on queries, keys, values and outputs, as in diffusers' script; whole: all weights, which with
gradients and moments take 16 GB (21 GB on their side at 512, more than 24 at 1024).

Every turn is a process of its own, ours and theirs alternate; its first step is not counted.
"""

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_prior import WuerstchenPrior
from peft import LoraConfig as PeftConfig
from peft import inject_adapter_in_model
from PIL import Image
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.process import resident_peak, run_module
from benchmarks.random_encodings import random_encoding
from benchmarks.records import ROOT, Run, this_run
from benchmarks.tables import digits, machine, save_page, table
from wuerstchen import diffusion
from wuerstchen.atomic_write import write_file
from wuerstchen.config import CompressorModel, LoraConfig, StageCModel
from wuerstchen.geometry import compressor_size, semantics_size
from wuerstchen.lora import add_lora
from wuerstchen.models.compressor import Compressor
from wuerstchen.models.stage_c import StageC

BATCH = {512: 2, 1024: 1}
"""Batch size with LoRA; for the whole network it is 1, which fits into 24 GB."""
STEPS = 2
"""Timed steps per turn."""
IMAGES = 8
TOKENS, WIDTH = 77, 1280
RANK = 4
BIG_G = CLIPTextConfig(
    hidden_size=WIDTH,
    intermediate_size=5120,
    num_hidden_layers=32,
    num_attention_heads=20,
    hidden_act="gelu",
)
"""The published text encoder of Stage C."""

Step = Callable[[int], Tensor]
"""Step number to its loss, whose backward pass fills the gradients."""


class Turn(NamedTuple):
    """The measurement of one process."""

    seconds: float
    """Median of a step."""
    peak: int
    """Peak memory of the process in bytes."""
    parts: dict[str, float]
    """Seconds by part of a step."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("--kinds", default="lora,whole")
    parser.add_argument("--sides", default="512,1024")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--turn", metavar="SYSTEM", help="measure a single turn and print its figures"
    )
    parser.add_argument("--profile", action="store_true", help="profile our step")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/benchmarks")
    options = parser.parse_args()
    kinds, sides = options.kinds.split(","), [int(side) for side in options.sides.split(",")]
    if options.turn:
        print(json.dumps(measure_turn(options.turn, kinds[0], sides[0], profiled=options.profile)))
        return
    path = options.out / "throughput.json"
    content = json.loads(path.read_text()) if path.is_file() else {"turns": {}, "runs": {}}
    for kind in kinds:
        for side in sides:
            turns: dict[str, list[Turn]] = {"ours": [], "diffusers": []}
            for _ in range(options.rounds):
                for system, found in turns.items():
                    found.append(_in_process(system, kind, side))
                    print(kind, side, system, found[-1], flush=True)
            content["turns"][f"{kind} {side}"] = turns
            content["runs"][f"{kind} {side}"] = this_run("random").model_dump()
            write_file(path, json.dumps(content, indent=1).encode())
            write_page(options.out)


def measure_turn(system: str, kind: str, side: int, *, profiled: bool = False) -> Turn:
    """Run the steps of one system in this process."""
    torch.manual_seed(0)
    network, step, parts = (_ours if system == "ours" else _theirs)(kind, side)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True if system == "ours" else None)
    seconds: list[float] = []
    for number in range(STEPS + 1):
        start = time.perf_counter()
        step(number).backward()
        stepped = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - start)
        parts.setdefault("clip and optimizer", []).append(time.perf_counter() - stepped)
    if profiled:
        with profile(activities=[ProfilerActivity.CPU]) as found:
            step(0).backward()
        print(found.key_averages().table("self_cpu_time_total", row_limit=12), file=sys.stderr)
    middle = {name: median(values[1:]) for name, values in parts.items()}
    return Turn(median(seconds[1:]), resident_peak(), middle)


Made = tuple[nn.Module, Step, dict[str, list[float]]]


def _ours(kind: str, side: int) -> Made:
    """Stage C on cached encodings."""
    batch, (rows, columns) = _batch(kind, side), semantics_size(side, side)
    folder = Path(tempfile.mkdtemp())
    semantics = random_encoding(folder / "semantics", "semantics", (16, rows, columns), IMAGES)
    text = random_encoding(folder / "text", "text", (TOKENS, WIDTH), IMAGES)
    network = StageC(StageCModel()).train()
    if kind == "lora":
        add_lora(network, LoraConfig(rank=RANK))
    parts: dict[str, list[float]] = {"read": []}

    def step(number: int) -> Tensor:
        start = time.perf_counter()
        chosen = [(number * batch + at) % IMAGES for at in range(batch)]
        scaled, states = semantics.rows(chosen), text.rows(chosen)
        parts["read"].append(time.perf_counter() - start)
        return _loss(lambda x, t: network(x, t, network.condition(states)), scaled)

    return network, step, parts


def _theirs(kind: str, side: int) -> Made:
    """diffusers' prior, with the work of its scripts before every step."""
    batch, inner = _batch(kind, side), compressor_size(side, side)[0]
    jpegs = [_jpeg(side, seed) for seed in range(IMAGES)]
    compressor = Compressor(CompressorModel()).eval().requires_grad_(False)
    encoder = CLIPTextModel(BIG_G).eval().requires_grad_(False)
    network = WuerstchenPrior(
        c_in=16, c=1536, c_cond=WIDTH, c_r=64, depth=32, nhead=24, dropout=0.1
    ).train()
    if kind == "lora":
        targets = ["to_k", "to_q", "to_v", "to_out.0"]
        settings = PeftConfig(r=RANK, lora_alpha=RANK, target_modules=targets)
        holder = nn.Module()
        holder.network = network.requires_grad_(False)
        inject_adapter_in_model(settings, holder)
    parts: dict[str, list[float]] = {"decode": [], "text encoder": [], "compressor": []}

    def timed(name: str, work: Callable[[], Tensor]) -> Tensor:
        start = time.perf_counter()
        with torch.no_grad():
            found = work()
        parts[name].append(time.perf_counter() - start)
        return found

    def step(number: int) -> Tensor:
        chosen = [(number * batch + at) % IMAGES for at in range(batch)]
        images = timed("decode", lambda: torch.stack([_decoded(jpegs[at], inner) for at in chosen]))
        tokens = torch.randint(0, 49408, (batch, TOKENS))
        mask = torch.ones_like(tokens)
        states = timed(
            "text encoder", lambda: encoder(tokens, attention_mask=mask).last_hidden_state
        )
        scaled = timed("compressor", lambda: (compressor(images) + 1) / 42)
        return _loss(lambda x, t: network(x, t, states), scaled)

    return network, step, parts


def _batch(kind: str, side: int) -> int:
    return BATCH[side] if kind == "lora" else 1


def _loss(network: Callable[[Tensor, Tensor], Tensor], scaled: Tensor) -> Tensor:
    """Squared error of the noise at uniform times."""
    noise, t = torch.randn_like(scaled), torch.rand(len(scaled))
    return (network(diffusion.add_noise(scaled, noise, t), t) - noise).square().mean()


def _jpeg(side: int, seed: int) -> bytes:
    """A smooth random image, a third wider than high, like typical files."""
    small = np.random.default_rng(seed).integers(0, 255, (side // 16, side // 12, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((side * 4 // 3, side), Image.Resampling.BICUBIC).save(
        file, format="JPEG", quality=92
    )
    return file.getvalue()


def _decoded(data: bytes, side: int) -> Tensor:
    """(3, side, side): a centre crop at the compressor's size, normalised as for ImageNet."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = side / min(image.size)
    image = image.resize(
        (round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR
    )
    left, top = (image.width - side) // 2, (image.height - side) // 2
    pixels = torch.from_numpy(np.array(image.crop((left, top, left + side, top + side))))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((pixels.float() / 255 - mean) / std).permute(2, 0, 1)


def _in_process(system: str, kind: str, side: int) -> Turn:
    options = ["--turn", system, "--kinds", kind, "--sides", str(side)]
    return Turn(*json.loads(run_module("benchmarks.throughput", *options)))


def write_page(out: Path) -> Path:
    """throughput.md from throughput.json."""
    content = json.loads((out / "throughput.json").read_text())
    rows, details, measured = [], [], []
    for name, turns in content["turns"].items():
        kind, side = name.split()
        run = Run.model_validate(content["runs"][name])
        measured.append(f"{kind}, {side} px: {machine(run)}.")
        found = {system: [Turn(*turn) for turn in each] for system, each in turns.items()}
        seconds = {system: median(turn.seconds for turn in each) for system, each in found.items()}
        peaks = {system: max(turn.peak for turn in each) / 2**30 for system, each in found.items()}
        batch = _batch(kind, int(side))
        ratios = sorted(
            theirs.seconds / ours.seconds
            for ours, theirs in zip(found["ours"], found["diffusers"], strict=True)
        )
        ratio = f"{seconds['diffusers'] / seconds['ours']:.2f}"
        rows.append(
            [
                f"{kind}, {side} px, batch {batch}",
                *(digits(batch / seconds[system]) for system in ("ours", "diffusers")),
                f"{ratio} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
                *(f"{peaks[system]:.1f}" for system in ("ours", "diffusers")),
            ]
        )
        for system, each in found.items():
            parts = {part: median(t.parts[part] for t in each) for part in each[0].parts}
            rest = seconds[system] - sum(parts.values())
            text = ", ".join(f"{part} {digits(value)}" for part, value in parts.items())
            details.append(
                [f"{kind}, {side} px", system, digits(seconds[system]), text, digits(rest)]
            )
    header = ("step", "ours", "diffusers", "ours over diffusers", "GiB, ours", "GiB, diffusers")
    lines = [
        "Images per second, and the peak memory of the process in GiB.\n",
        *table(header, rows),
        "Where the seconds of a step go:\n",
        *table(("step", "side", "seconds", "parts", "forward and backward"), details),
        *(f"- {line}" for line in measured),
        "",
    ]
    title = "A training step of Stage C"
    return save_page(out / "throughput.md", title, "benchmarks.throughput", lines)


if __name__ == "__main__":
    main()
