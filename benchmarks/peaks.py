"""Peak memory of whole images at the published size, for every way to hold the weights.

`python -m benchmarks.peaks` writes docs/benchmarks/peaks.json and peaks.md. Every figure is of a
process of its own, in which nothing was freed before. `python -m benchmarks.peaks one ...` is such
a process; it prints one line of JSON.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from benchmarks.full_size import DECODER, PRIOR, PROMPT, write_pair
from benchmarks.jobs import dtype_of
from benchmarks.peaks_page import page
from benchmarks.records import ROOT, Run, this_run
from wuerstchen.atomic_write import write_file

Mode = Literal["normal", "low_memory", "diffusers", "stage_a", "stage_a_strips"]

OUT = ROOT / "docs" / "benchmarks"
STATUS = Path("/proc/self/status")
SAMPLED_EVERY = 0.005
"""Seconds between two looks at what is no page of a file; the peak of all is the kernel's own."""
STRIP = 128
"""Rows of latent cells of a strip: what the pipeline takes at 2048 x 2048 pixels."""


class Case(NamedTuple):
    """What is measured."""

    mode: Mode
    side: int
    dtype: str = "float32"
    """In which the networks work."""
    files: str = "float32"
    """Which the files hold."""


CASES = (
    *(Case(mode, 512) for mode in ("normal", "low_memory", "diffusers")),
    Case("low_memory", 512, "bfloat16", "float32"),
    Case("normal", 512, "bfloat16", "bfloat16"),
    Case("low_memory", 512, "bfloat16", "bfloat16"),
    *(Case(mode, side) for side in (1024, 2048) for mode in ("stage_a", "stage_a_strips")),
)
"""Images first, since decodings take the longest."""


class Held(BaseModel):
    """What a process held in memory, in bytes."""

    model_config = ConfigDict(frozen=True)
    mode: Mode
    side: int
    dtype: str
    files: str
    largest: int
    """The file of weights that is the largest."""
    before: int
    """With all code loaded, and no network."""
    seen: int
    """Most that was resident at a time, before included. The system takes pages of mapped files
    back when it likes, so on another machine it may be more."""
    own_before: int
    own: int
    """Most that belongs to no file at a time, before included; sampled."""
    mapped: int
    """Files of weights that are mapped at a time: all of it is resident where memory is not
    short."""
    seconds: float
    """From opening the files to the image."""
    finite: bool
    """Whether all numbers of the image are."""

    @property
    def part(self) -> int:
        """Bytes of the largest part in the kind of numbers that it works in."""
        return self.largest * dtype_of(self.dtype).itemsize // dtype_of(self.files).itemsize

    @property
    def peak(self) -> int:
        """Most bytes that the model and the image take where the system takes nothing back."""
        return max(self.seen - self.before, self.own - self.own_before + self.mapped)


class Peaks(BaseModel):
    """The content of peaks.json."""

    run: Run
    held: list[Held]


def measure(case: Case, folder: Path) -> Held:
    """In a process of its own, of the two repositories in `folder`."""
    words = [case.mode, str(case.side), "--dtype", case.dtype, "--files", case.files]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.peaks", "one", *words, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"benchmarks.peaks one {' '.join(words)}: {done.stderr[-2000:]}")
    return Held.model_validate_json(done.stdout.splitlines()[-1])


def run_one(case: Case, folder: Path) -> Held:
    """In this process."""
    decoder, prior = folder / DECODER, folder / PRIOR
    make = _maker(case, decoder, prior)
    before = _status()
    start = time.perf_counter()
    with _watched() as most, torch.inference_mode():
        image = make()
    return Held(
        mode=case.mode,
        side=case.side,
        dtype=case.dtype,
        files=case.files,
        largest=max(_files(decoder, prior)),
        before=before["VmHWM"],
        seen=_status()["VmHWM"],
        own_before=before["RssAnon"],
        own=most[0],
        mapped=_mapped(case, decoder, prior),
        seconds=round(time.perf_counter() - start, 1),
        finite=bool(image.isfinite().all()),
    )


def _maker(case: Case, decoder: Path, prior: Path) -> Callable[[], Tensor]:
    """All code loaded, nothing of the model: what is called then is what is measured."""
    torch.ones(8, 8) @ torch.ones(8, 8)
    dtype = dtype_of(case.dtype)
    if case.mode == "diffusers":
        return _diffusers(decoder, prior, case.side)
    import transformers

    from wuerstchen import weights
    from wuerstchen.inference.pipeline import Pipeline

    for name in ("CLIPTextModel", "CLIPTokenizer"):  # else loaded where they are used first
        getattr(transformers, name)
    if case.mode in ("normal", "low_memory"):

        def draw() -> Tensor:
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

        return draw

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

    def draw() -> Tensor:
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

    return draw


def _files(*folders: Path) -> list[int]:
    """Bytes of all files of weights."""
    paths = (path for folder in folders for path in folder.rglob("*.safetensors"))
    return [path.stat().st_size for path in paths]


def _mapped(case: Case, decoder: Path, prior: Path) -> int:
    if case.dtype != case.files:
        return 0  # converted, and so its own
    if case.mode in ("normal", "diffusers"):  # both map all, as their own memory shows
        return sum(_files(decoder, prior))
    return max(_files(decoder, prior) if case.mode == "low_memory" else _files(decoder / "vqgan"))


@contextmanager
def _watched() -> Iterator[list[int]]:
    """Look again and again at the pages of this process that belong to no file: the most."""
    most, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLED_EVERY):
            most[0] = max(most[0], _status()["RssAnon"])

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()


def _status() -> dict[str, int]:
    """Bytes by the names that Linux has for them."""
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    named = (line.partition(":") for line in lines if line.endswith(" kB"))
    return {name: int(value.split()[0]) * 1024 for name, _, value in named}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peaks", description=__doc__)
    parser.set_defaults(do="all")
    verbs = parser.add_subparsers()
    one = verbs.add_parser("one", help="measure in this process and print one line of JSON")
    one.set_defaults(do="one")
    one.add_argument("mode", choices=get_args(Mode))
    one.add_argument("side", type=int)
    one.add_argument("folder", type=Path, help="of what benchmarks.full_size wrote")
    one.add_argument("--dtype", default="float32", help="in which the networks work")
    one.add_argument("--files", default="float32", help="which the files hold")
    parser.add_argument("--out", type=Path, default=OUT)
    words = parser.parse_args()
    if words.do == "one":
        case = Case(words.mode, words.side, words.dtype, words.files)
        print(run_one(case, words.folder).model_dump_json())
    else:
        measure_all(words.out)


def measure_all(out: Path) -> None:
    """Write peaks.json and peaks.md; the models lie in the system's temporary folder meanwhile."""
    run = this_run("published")
    held: list[Held] = []
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
