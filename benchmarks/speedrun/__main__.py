"""Train a model from sprites by a fixed clock.

    python -m benchmarks.speedrun STICKERS OUT --config benchmarks/speedrun/h100.yaml

STICKERS is a folder of tars, train-*.tar and test-cells-*.tar. OUT receives the model folder, the
log and sample grids. All scenes are composed first: beside a training that shares its processors,
composing takes more from it than it saves.
"""

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.records import this_run
from benchmarks.speedrun.phases import Place, run_stage_a, run_stage_b, run_stage_c
from benchmarks.speedrun.samples import write_samples
from benchmarks.speedrun.scenes import Scenes
from wuerstchen.config import load

HELD_OUT = 500

FOLDERS = {run_stage_a: "vqgan", run_stage_b: "decoder", run_stage_c: "prior_prior"}
"""What each stage leaves in the model folder."""

app = typer.Typer(add_completion=False)


@app.command()
def speedrun(
    stickers: Annotated[Path, typer.Argument(help="Folder of the sticker tars.")],
    out: Annotated[Path, typer.Argument(help="Folder to write to.")],
    config: Annotated[Path, typer.Option(help="Sizes and training of the three stages.")],
    scenes: Annotated[int, typer.Option(min=1, help="Composed training scenes.")] = 20_000,
    seconds: Annotated[
        str, typer.Option(help="Seconds of training for Stages A, B and C.")
    ] = "600,1400,1200",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Config values, such as seed=1.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Skip stages that OUT already has.")] = True,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the networks.")] = False,
    sample: Annotated[bool, typer.Option(help="Draw sample grids at the end.")] = True,
) -> None:
    """Compose scenes, train all stages for a fixed time, and draw samples."""
    begun = time.perf_counter()
    settings = load(str(config), overrides or [])
    folder = out / settings.name
    folder.mkdir(parents=True, exist_ok=True)
    size = settings.data.size
    train = Scenes(out, "train", stickers, size, scenes, settings.seed)
    test = Scenes(out, "test-cells", stickers, size, HELD_OUT, settings.seed)
    for part in (test, train):
        part.start(os.cpu_count() or 1)
        part.wait()
    cuda = torch.cuda.is_available()
    place = Place(torch.device("cuda" if cuda else "cpu"), bf16=cuda, compiled=compiled)
    if cuda:
        torch.set_float32_matmul_precision("high")
        torch._dynamo.config.recompile_limit = 64  # shapes of a block
        torch._dynamo.config.suppress_errors = True  # an eager network is slower, not wrong
    log = out / "log.jsonl"
    report: dict[str, object] = {
        "run": this_run(settings.name).model_dump(),
        "composed": time.perf_counter() - begun,
    }
    times = [float(each) for each in seconds.split(",")]
    for run_stage, spend in zip((run_stage_a, run_stage_b, run_stage_c), times, strict=True):
        entered = time.perf_counter()
        if resume and (folder / FOLDERS[run_stage]).is_dir():
            continue
        done = run_stage(settings, spend, train, folder, place, log)
        whole = time.perf_counter() - entered
        report[done.stage] = {**asdict(done), "whole": whole}
        typer.echo(f"{done.stage}: {report[done.stage]}")
        (out / "report.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
        if cuda:
            torch.cuda.empty_cache()
    if sample:
        report["samples"] = write_samples(settings, folder, test, train, place, out)
    report["seconds"] = time.perf_counter() - begun
    (out / "report.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    typer.echo(json.dumps(report["seconds"]))


if __name__ == "__main__":
    app(prog_name="python -m benchmarks.speedrun")
