"""Whether everything runs on a device, and computes there what it computes elsewhere.

    python -m benchmarks.device.smoke --out OUT     on a GPU, one to two minutes; also on a CPU

Every check prints a line, `ok` or `FAILED` with its figures, and the others go on. What needs
processes of its own runs beside the rest: generation, training, FSDP2 and the tests marked
`device`. Nothing here is timed.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch._dynamo.utils import counters

from benchmarks.device.comparing import PROMPT, Failed, device, expect, image_of, psnr, relative
from benchmarks.device.steps import check_fsdp, check_steps
from benchmarks.networks import PUBLISHED, STAGES, TINY, network_call, single
from benchmarks.process import ROOT
from wuerstchen import Pipeline

Check = Callable[[], str]
"""Returns figures; raises Failed where they are wrong, and anything else where it breaks."""

HELPERS = 8
"""Processes of the tests."""

LIMIT = 150
"""Seconds of a check with a process of its own."""


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 1 if a check failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.device.smoke")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder (default out)")
    parser.add_argument("--only", help="names of checks, such as bf16,compile")
    parser.add_argument("--tiny", action="store_true", help="tiny networks in bf16 against fp32")
    parser.add_argument("--fsdp", action="store_true", help="one sharded step, by torchrun")
    options = parser.parse_args(arguments)
    if options.fsdp:
        print(check_fsdp())
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    names = options.only.split(",") if options.only else None
    print(f"torch {torch.__version__}, {_device_name()}", flush=True)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        apart = _started(pool, _apart(Path(folder), options.out), names)
        here: dict[str, Check] = {
            "fp32": partial(check_stages, "float32", tiny=True),
            "bf16": partial(check_stages, "bfloat16", tiny=options.tiny),
            "pipeline in bf16": check_pipeline,
            "training steps": check_steps,
            "compile": check_compiled,
        }
        lines = [_line(name, check) for name, check in here.items() if _chosen(name, names)]
        lines += [_line(name, future.result) for name, future in apart.items()]
    (options.out / "smoke.txt").write_text("\n".join(lines) + "\n")
    return int(any(line.startswith("FAILED") for line in lines))


@torch.inference_mode()
def check_stages(dtype: str, *, tiny: bool) -> str:
    """The three stages with random weights, of 256 or 1024 pixels.

    In bf16: against fp32 on the same device. In fp32: against fp32 on the CPU.
    """
    sizes, side = (TINY, 256) if tiny else (PUBLISHED, 1024)
    here, lowered = device(), dtype == "bfloat16"
    found: dict[str, float] = {}
    for part in STAGES:
        network = single("ours", part, sizes, device=str(here) if lowered else "cpu")
        expected = network_call("ours", part, network, sizes, side).step().float().cpu()
        network.to(here, torch.bfloat16 if lowered else torch.float32)
        computed = network_call("ours", part, network, sizes, side).step().float().cpu()
        found[part] = relative(computed, expected)
        del network
    return _expect_all(found, at_most=5e-2 if lowered else 2e-3)


def check_pipeline() -> str:
    """The bundled model in bf16 draws nearly what it draws in fp32."""
    plain, lowered = Pipeline.from_pretrained(), Pipeline.from_pretrained()
    expected = image_of(plain.to(device()))
    found = image_of(lowered.to(device(), torch.bfloat16))
    return expect("PSNR", psnr(found, expected), at_least=18.0)


def check_compiled() -> str:
    """The bundled model, compiled, draws the eager images; on a GPU from CUDA graphs."""
    eager, compiled = (Pipeline.from_pretrained().to(device()) for _ in range(2))
    compiled.compile()
    figures = []
    for seed in (3, 4, 5):  # compiled and recorded, replayed, replayed
        images = (image_of(pipeline, seed) for pipeline in (compiled, eager))
        figures.append(expect(f"PSNR of seed {seed}", psnr(*images), at_least=35.0))
    skipped = counters["inductor"]["cudagraph_skips"]
    if skipped:
        raise Failed(f"{', '.join(figures)}; {skipped} programs are not CUDA graphs")
    return ", ".join(figures)


def check_generate(folder: Path) -> str:
    """`wuerstchen generate` on the device against the CPU."""
    here, on_cpu = folder / "here", folder / "cpu"
    with ThreadPoolExecutor() as pool:
        list(pool.map(_generate, (here, on_cpu), ({}, {"CUDA_VISIBLE_DEVICES": ""})))
    images = [_pixels(path) for path in (here, on_cpu)]
    return expect("PSNR", psnr(*images), at_least=28.0)


def check_training(folder: Path) -> str:
    """`wuerstchen train tiny` by torchrun in one process: every stage, validated and exported."""
    images, changes = folder / "images", list[str]()
    images.mkdir()
    _write_images(images)
    for section in ("stage_a.training", "stage_b.pretraining", "stage_b.training"):
        changes += [f"{section}.images=64", f"{section}.batch_size=16"]
    changes += ["stage_c.training.images=64", "stage_c.training.batch_size=16"]
    model = folder / "model"
    words = ["train", "tiny", f"data.path={images}", f"output={model}", *changes]
    _run(*_torchrun("wuerstchen"), *words)
    files = sorted(model.rglob("*.safetensors"))
    if not files:
        raise Failed("no weights were written")
    return f"{len(files)} files of weights"


def check_sharded() -> str:
    """FSDP2 in one process of torchrun, with NCCL on a GPU."""
    return _run(*_torchrun("benchmarks.device.smoke"), "--fsdp").splitlines()[-1]


def check_tests(out: Path) -> str:
    """The fast tests that use a GPU; their output is in tests.txt."""
    words = ["-q", "--device", "-m", "not slow", "-n", f"{HELPERS}", "--tb=short"]
    words += ["-p", "no:cacheprovider"]
    try:
        printed = _run("-m", "pytest", *words, "-o", "filterwarnings=default", keep=True)
    except subprocess.TimeoutExpired as error:
        out.joinpath("tests.txt").write_bytes(error.stdout or b"")
        raise Failed(f"took more than {LIMIT} s") from None
    out.joinpath("tests.txt").write_text(printed)
    last = printed.splitlines()[-1].strip("= ")
    if "failed" in last or "error" in last or "passed" not in last:
        raise Failed(last)
    return last


def _apart(folder: Path, out: Path) -> dict[str, Check]:
    """Checks with processes of their own; the slowest first."""
    return {
        "tests": partial(check_tests, out),
        "train": partial(check_training, folder),
        "FSDP2": check_sharded,
        "generate": partial(check_generate, folder),
    }


def _started(
    pool: ThreadPoolExecutor, checks: Mapping[str, Check], names: list[str] | None
) -> dict[str, Future[str]]:
    return {name: pool.submit(check) for name, check in checks.items() if _chosen(name, names)}


def _chosen(name: str, names: list[str] | None) -> bool:
    return names is None or name in names


def _line(name: str, check: Check) -> str:
    """Run a check and print what came of it."""
    try:
        line = f"ok     {name}: {check()}"
    except Failed as error:
        line = f"FAILED {name}: {error}"
    except Exception as error:  # the other checks go on
        traceback.print_exc()
        line = f"FAILED {name}: {type(error).__name__}: {str(error)[-600:]}"
    print(line, flush=True)
    return line


def _expect_all(found: Mapping[str, float], at_most: float) -> str:
    figures = ", ".join(f"{part} {value:.2g}" for part, value in found.items())
    if not all(value <= at_most for value in found.values()):  # nor NaN
        raise Failed(f"relative differences {figures}, expected at most {at_most:g}")
    return f"relative differences {figures}"


def _torchrun(module: str) -> tuple[str, ...]:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1")
    return (*launcher, "-m", module)


def _run(*words: str, keep: bool = False, environment: Mapping[str, str] | None = None) -> str:
    """Python with these words in the project's root; what it prints.

    keep  also if it fails
    """
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if done.returncode and not keep:
        raise Failed(f"exit code {done.returncode}: {_cause(done.stderr)}")
    return done.stdout


def _cause(printed: str) -> str:
    """The end of what a process printed, without what torchrun adds to it."""
    return re.split("(?m)^E[0-9]{4} .* failed \\(exitcode", printed)[0].strip()[-1500:]


def _generate(folder: Path, environment: Mapping[str, str]) -> None:
    words = ["-m", "wuerstchen", "generate", PROMPT, "--seed", "3", "--num-images", "2"]
    _run(*words, "--out", f"{folder}/", environment=environment)


def _pixels(folder: Path) -> Tensor:
    """(B, H, W, 3) in [0, 1]."""
    import numpy as np
    from PIL import Image

    arrays = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))]
    return torch.from_numpy(np.stack(arrays)).float() / 255


def _write_images(folder: Path) -> None:
    """32 smooth random images with captions."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for index in range(32):
        small = Image.fromarray(rng.integers(0, 255, (4, 4, 3), np.uint8))
        small.resize((160, 160), Image.Resampling.BICUBIC).save(folder / f"{index:02d}.png")
        (folder / f"{index:02d}.txt").write_text(f"colours number {index}")


def _device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


if __name__ == "__main__":
    sys.exit(main())
