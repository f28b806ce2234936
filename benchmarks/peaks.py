"""Peak memory of whole images at the published size, for every way to keep weights in memory.

`python -m benchmarks.peaks` writes docs/benchmarks/peaks.json and peaks.md. Every case runs in a
process of its own. `python -m benchmarks.peaks one ...` is such
a process; it prints one line of JSON.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from benchmarks.full_size import DECODER, PRIOR, PROMPT, write_pair
from benchmarks.jobs import dtype_of
from benchmarks.peaks_report import Mode, Peak, Peaks, page
from benchmarks.process import memory_status, run_module
from benchmarks.records import ROOT, this_run
from wuerstchen.atomic_write import write_file

OUT = ROOT / "docs" / "benchmarks"
SAMPLE_INTERVAL = 0.005
"""Seconds between samples of memory that belongs to no file."""
STRIP = 128
"""Latent rows per strip, as the pipeline decodes 2048 x 2048 pixels."""


class Case(NamedTuple):
    """One measurement."""

    mode: Mode
    side: int
    dtype: str = "float32"
    """Working dtype of the networks."""
    files: str = "float32"
    """Dtype of the weights in the files."""


CASES = (
    *(Case(mode, 512) for mode in ("normal", "low_memory", "diffusers")),
    Case("low_memory", 512, "bfloat16", "float32"),
    Case("normal", 512, "bfloat16", "bfloat16"),
    Case("low_memory", 512, "bfloat16", "bfloat16"),
    *(Case(mode, side) for side in (1024, 2048) for mode in ("stage_a", "stage_a_strips")),
)
"""Images first, because decoding takes longest."""


def measure(case: Case, folder: Path) -> Peak:
    """Measure in a process of its own, with the two repositories in `folder`."""
    options = ["--dtype", case.dtype, "--files", case.files]
    arguments = ["one", case.mode, str(case.side), *options, str(folder)]
    return Peak.model_validate_json(run_module("benchmarks.peaks", *arguments))


def run_one(case: Case, folder: Path) -> Peak:
    """Measure in this process."""
    decoder, prior = folder / DECODER, folder / PRIOR
    make = _maker(case, decoder, prior)
    before = memory_status()
    start = time.perf_counter()
    with _sampled_peak() as most, torch.inference_mode():
        image = make()
    return Peak(
        mode=case.mode,
        side=case.side,
        dtype=case.dtype,
        files=case.files,
        largest=max(_files(decoder, prior)),
        before=before["VmHWM"],
        seen=memory_status()["VmHWM"],
        own_before=before["RssAnon"],
        own=most[0],
        mapped=_mapped(case, decoder, prior),
        seconds=round(time.perf_counter() - start, 1),
        finite=bool(image.isfinite().all()),
    )


def _maker(case: Case, decoder: Path, prior: Path) -> Callable[[], Tensor]:
    """Load all code but nothing of the model; the returned function is what is measured."""
    torch.ones(8, 8) @ torch.ones(8, 8)
    dtype = dtype_of(case.dtype)
    if case.mode == "diffusers":
        return _diffusers(decoder, prior, case.side)
    import transformers

    from wuerstchen import weights
    from wuerstchen.inference.pipeline import Pipeline

    for name in ("CLIPTextModel", "CLIPTokenizer"):  # otherwise loaded on first use
        getattr(transformers, name)
    if case.mode in ("normal", "low_memory"):

        def generate() -> Tensor:
            pipeline = Pipeline.from_pretrained(
                decoder, torch_dtype=dtype, low_memory=case.mode == "low_memory"
            )
            images = pipeline(
                PROMPT,
                height=case.side,
                width=case.side,
                prior_timesteps=[1.0, 0.0],
                prior_guidance_interval=(0.0, 1.0),
                num_inference_steps=1,
                seed=0,
                output_type="pt",
            ).images
            assert isinstance(images, Tensor)
            return images

        return generate

    def decode() -> Tensor:
        stage_a = weights.stage_a.load(
            weights.resolve_component(decoder, "stage_a"), dtype, mmap=True
        )
        cells = case.side // 4
        latent = torch.randn(1, 4, cells, cells, generator=torch.Generator().manual_seed(0))
        if case.mode == "stage_a":
            return stage_a.decode(latent)
        return stage_a.decode_in_strips(latent, min(STRIP, cells // 2))

    return decode


def _diffusers(decoder: Path, prior: Path, side: int) -> Callable[[], Tensor]:
    from diffusers import DDPMWuerstchenScheduler
    from diffusers.pipelines.deprecated.wuerstchen import (
        PaellaVQModel,
        WuerstchenCombinedPipeline,
        WuerstchenDiffNeXt,
        WuerstchenPrior,
    )
    from transformers import CLIPTextModel, CLIPTokenizer

    def generate() -> Tensor:
        pipeline = WuerstchenCombinedPipeline(
            tokenizer=CLIPTokenizer.from_pretrained(decoder / "tokenizer"),
            text_encoder=CLIPTextModel.from_pretrained(decoder / "text_encoder"),
            decoder=WuerstchenDiffNeXt.from_pretrained(decoder / "decoder"),
            scheduler=DDPMWuerstchenScheduler(),
            vqgan=PaellaVQModel.from_pretrained(decoder / "vqgan"),
            prior_tokenizer=CLIPTokenizer.from_pretrained(prior / "tokenizer"),
            prior_text_encoder=CLIPTextModel.from_pretrained(prior / "text_encoder"),
            prior_prior=WuerstchenPrior.from_pretrained(prior / "prior"),
            prior_scheduler=DDPMWuerstchenScheduler(),
        )
        images: Tensor = pipeline(
            PROMPT,
            height=side,
            width=side,
            prior_timesteps=[1.0, 0.0],
            num_inference_steps=1,
            prior_guidance_scale=4.0,
            decoder_guidance_scale=0.0,
            generator=torch.Generator().manual_seed(0),
            output_type="pt",
        ).images
        return images

    return generate


def _files(*folders: Path) -> list[int]:
    """Bytes of all files of weights."""
    paths = (path for folder in folders for path in folder.rglob("*.safetensors"))
    return [path.stat().st_size for path in paths]


def _mapped(case: Case, decoder: Path, prior: Path) -> int:
    if case.dtype != case.files:
        return 0  # converted copies, not mapped
    if case.mode in ("normal", "diffusers"):  # both map all files
        return sum(_files(decoder, prior))
    return max(_files(decoder, prior) if case.mode == "low_memory" else _files(decoder / "vqgan"))


@contextmanager
def _sampled_peak() -> Iterator[list[int]]:
    """Sample the peak of this process's memory that belongs to no file."""
    most, done = [0], threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_INTERVAL):
            most[0] = max(most[0], memory_status()["RssAnon"])

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield most
    finally:
        done.set()
        sampler.join()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peaks", description=__doc__)
    parser.set_defaults(do="all")
    verbs = parser.add_subparsers()
    one = verbs.add_parser("one", help="measure in this process and print one line of JSON")
    one.set_defaults(do="one")
    one.add_argument("mode", choices=get_args(Mode))
    one.add_argument("side", type=int)
    one.add_argument("folder", type=Path, help="written by benchmarks.full_size")
    one.add_argument("--dtype", default="float32", help="working dtype of the networks")
    one.add_argument("--files", default="float32", help="dtype of the files")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    if options.do == "one":
        case = Case(options.mode, options.side, options.dtype, options.files)
        print(run_one(case, options.folder).model_dump_json())
    else:
        measure_all(options.out)


def measure_all(out: Path) -> None:
    """Write peaks.json and peaks.md; models are written to a temporary folder."""
    run = this_run("published")
    held: list[Peak] = []
    for files in ("float32", "bfloat16"):
        with tempfile.TemporaryDirectory() as name:
            write_pair(Path(name), dtype_of(files))
            for case in (case for case in CASES if case.files == files):
                held.append(measure(case, Path(name)))
                print(held[-1].model_dump_json(), flush=True)
                peaks = Peaks(run=run, held=held)
                write_file(out / "peaks.json", (peaks.model_dump_json(indent=1) + "\n").encode())
                write_file(out / "peaks.md", page(peaks).encode())


if __name__ == "__main__":
    main()
